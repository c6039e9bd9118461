"""What reviewers, packagers and scanners look for in a repository is there, and agrees with itself."""

import ast
import importlib.util
import json
import re
import shlex
import shutil
import subprocess

import pytest
import yaml
from helpers import ROOT, inside

from dcn_study.book.pages import PAGES
from dcn_study.runs.catalogue import find_run

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def citation():
    return yaml.safe_load(read("CITATION.cff"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_is_pinned_and_has_few_rights(path):
    text = path.read_text(encoding="utf-8")
    for used in re.findall(r"uses: (.*)", text):
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", used), used
    for installed in re.findall(r"pip install (?!--editable|dist/)(.*)", text):
        assert re.fullmatch(r"[\w-]+==[\d.]+", installed), installed
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job.get("timeout-minutes", 0) or "uses: actions/checkout" not in str(job)


def test_an_action_has_one_commit_in_all_workflows():
    pins = {}
    for path in WORKFLOWS:
        for name, pin in re.findall(r"uses: ([^@]+)@(.*)", path.read_text(encoding="utf-8")):
            assert pins.setdefault(name, pin) == pin


def test_updates_are_configured():
    updates = yaml.safe_load(read(".github/dependabot.yml"))["updates"]
    assert {"github-actions", "docker"} <= {each["package-ecosystem"] for each in updates}
    for each in updates:
        assert (ROOT / each["directory"].strip("/")).is_dir()


def test_the_lowest_versions_are_tested_as_they_are_stated():
    project = read("pyproject.toml")
    lowest = dict(re.findall(r'"(keras|numpy|tensorflow)>=([\d.]+)"', project))
    assert lowest.keys() == {"keras", "numpy", "tensorflow"}
    jobs = yaml.safe_load(read(".github/workflows/support.yml"))["jobs"]["library"]["strategy"]["matrix"]["include"]
    oldest = [job["versions"].split() for job in jobs if job["name"].startswith("oldest")]
    assert oldest
    for versions in oldest:
        assert {f"{name}=={version}.*" for name, version in lowest.items()} <= set(versions)
    assert any("onnxruntime==1.25.*" in versions for versions in oldest)
    pythons = re.findall(r"Python :: (3\.\d+)", project)
    assert yaml.safe_load(read(".github/workflows/test.yml"))["jobs"]["test"]["strategy"]["matrix"]["python"] == pythons
    table = re.findall(r"^\| (\w[\w, ]*?) \| ([\d.]+)", read("README.md"), re.MULTILINE)
    stated = {name: version for name, version in table if name in ("Python", "TensorFlow", "Keras", "onnxruntime, CPU")}
    assert stated == {
        "Python": pythons[0],
        "TensorFlow": lowest["tensorflow"],
        "Keras": lowest["keras"],
        "onnxruntime, CPU": "1.25.0",
    }


def test_every_file_that_a_workflow_names_is_there():
    for path in WORKFLOWS:
        for name in re.findall(r"\b(?:tests|\.ci)/[\w./]+", path.read_text(encoding="utf-8").replace("/**", "")):
            assert (ROOT / name).exists(), name


def test_the_support_workflow_tests_the_library():
    assert "pytest tests/library\n" in read(".github/workflows/support.yml")


DOCUMENTS = ("README.md", "CONTRIBUTING.md", "SUPPORT.md", "SECURITY.md", "CODE_OF_CONDUCT.md")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_between_documents_lead_somewhere(name):
    text = read(name)
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        path, _, anchor = target.partition("#")
        assert (ROOT / (path or name)).is_file(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", read(path or name), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_the_readme_begins_with_need_and_audience_in_three_sentences():
    text = read("README.md")
    first = text.split("\n\n")[1].replace("\n", " ")
    assert len(re.findall(r"[a-z)*]\.(?: |$)", first.replace("D. Oza", "Oza"))) == 3
    assert first.count("**people who") == 2
    assert text.index("make book") < text.index("## The layer")


def test_an_owner_finds_what_is_left_in_one_section():
    section = read("CONTRIBUTING.md").split("## What an owner must still do")[1]
    assert "\n## " not in section
    for word in ("repository-code", "ORCID", "DOI", "Pages", "Trusted publishing", "First release", "codecheck.yml"):
        assert word in section
    for name in re.findall(r"`([\w./-]+\.(?:md|yml|toml|cff|json|py))`", section):
        assert list(ROOT.glob(name)) or list(ROOT.rglob(name)), name


def test_all_descriptions_have_one_title_and_one_author():
    paper = yaml.safe_load(read("paper.md").split("---\n")[1])
    checked = yaml.safe_load(read("codecheck.yml"))
    authors = [each["name"] for each in citation()["authors"]]
    assert [each["name"] for each in paper["authors"]] == authors
    assert [each["name"] for each in checked["paper"]["authors"]] == authors
    assert paper["title"] == checked["paper"]["title"] == citation()["title"]


def test_the_paper_has_the_form_of_the_journal():
    text = read("paper.md")
    headings = re.findall(r"^# (.*)$", text, re.MULTILINE)
    assert headings == [
        "Summary",
        "Statement of need",
        "State of the field",
        "Software design",
        "Research impact statement",
        "References",
    ]
    assert 750 <= len(text.split("---\n")[2].split()) <= 1750
    bibliography = dict(re.findall(r"^@\w+\{(\w+),\n(.*?)^\}", read("book/references.bib"), re.MULTILINE | re.DOTALL))
    for key in re.findall(r"@(\w+)", text.split("---\n")[2]):
        kind = "published" if "journal =" in bibliography[key] or "booktitle =" in bibliography[key] else "other"
        assert kind == "other" or re.search(r"doi = \{10\.\d{4,5}/\S+\}", bibliography[key]), key


def test_what_is_to_be_reproduced_exists_and_its_commands_do():
    text = read("codecheck.yml")
    assert text.startswith("---\n")
    assert not re.search("FIXME|TODO|XXX", text)
    targets = re.findall(r"^([\w./$()]+):", read("Makefile"), re.MULTILINE)
    for each in yaml.safe_load(text)["manifest"]:
        assert not each["file"].startswith("/")
        folder, _, name = each["file"].rpartition("/")
        command, _, rest = each["comment"].partition(":")
        assert rest.strip(), each
        words = shlex.split(command)
        if words[0] == "make":
            assert words[1] in targets
            assert folder == "_build/html/executed"
            assert name.removesuffix(".html").removesuffix(".values.json") in PAGES
        else:
            assert words[:3] == [".venv/bin/dcn", "train", "--force"]
            assert (ROOT / each["file"]).is_file()
            assert find_run(words[3])
            assert each["file"] == f"book/records/{words[3]}.json"


def test_the_container_opens_with_what_the_makefile_installs():
    container = json.loads(read(".devcontainer/devcontainer.json"))
    folder = ROOT / ".devcontainer"
    recipe = (folder / container["build"]["dockerfile"]).read_text(encoding="utf-8")
    command = shlex.split(container["postCreateCommand"])
    assert command[0] == "make"
    with inside(ROOT):  # prints what it would do, or fails if there is no such target
        subprocess.run(["make", "--dry-run", *command[1:]], check=True, capture_output=True)
    for tool in ("git", "make", "chromium"):
        assert re.search(rf"install .*\b{tool}\b", recipe)
    python = re.search(r"^FROM python:(\d\.\d+)-", recipe, re.MULTILINE)[1]
    assert f'python-version: "{python}"' in read(".github/workflows/publish.yml")
    assert read(".binder/runtime.txt") == f"python-{python}\n"


def test_binder_runs_commands_that_exist():
    path = ROOT / ".binder" / "postBuild"
    assert path.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", str(path)], check=True)
    text = path.read_text(encoding="utf-8")
    assert "--require-hashes --requirement requirements.lock" in text
    installed = re.findall(r"--editable (\S+)", text)
    assert installed == ["./dcn_study"] or installed == [".", "./dcn_study"]
    assert all((ROOT / each / "pyproject.toml").is_file() for each in installed)
    assert re.findall(r"^dcn (\w+)", text, re.MULTILINE) == ["list"]


def addresses():
    specification = importlib.util.spec_from_file_location("addresses", ROOT / ".ci" / "addresses.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_addresses_are_those_that_the_citation_states():
    table = addresses().urls(read("CITATION.cff"))
    for name in addresses().PROJECTS:
        assert "".join(addresses().TABLE.findall(read(name))) == table


def test_an_owner_states_the_address_once(tmp_path):
    (tmp_path / "dcn_study").mkdir()
    for name in addresses().PROJECTS:
        shutil.copy(ROOT / name, tmp_path / name)
    original = {name: read(name) for name in addresses().PROJECTS}
    with inside(tmp_path):
        for line in ("", 'repository-code: "https://example.org/a/b/"\n', "repository-code: https://example.org/c\n"):
            (tmp_path / "CITATION.cff").write_text("cff-version: 1.2.0\n" + line)
            addresses().main()
            addresses().main()  # twice is as good as once
            for name in addresses().PROJECTS:
                text = (tmp_path / name).read_text()
                assert text.count("[project.urls]") == bool(line)
                assert addresses().TABLE.sub("", text) == addresses().TABLE.sub("", original[name])
        assert 'Issues = "https://example.org/c/issues"\n' in text
        assert "a/b" not in text


def test_the_script_for_addresses_needs_no_package():
    imported = [node for node in ast.walk(ast.parse(read(".ci/addresses.py"))) if isinstance(node, ast.ImportFrom)]
    assert [node.module for node in imported] == ["pathlib"]
