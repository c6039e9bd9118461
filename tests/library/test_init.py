import ast
import shutil
import subprocess
import sys
import zipfile

from helpers import ROOT

import dcn

PUBLIC = {
    "ConvOffset2D",
    "DeformableConv1D",
    "DeformableConv2D",
    "DeformableRoIPooling2D",
    "__version__",
    "cnn",
    "copy_weights_by_name",
    "dead_weights",
    "deform_conv2d",
    "deform_roi_pool",
    "deform_conv_cnn",
    "deformable_cnn",
    "deformable_mini_resnet",
    "mini_resnet",
    "resample_by_offsets",
    "sampling_points",
    "to_onnx",
}


def test_public_names():
    assert set(dcn.__all__) == PUBLIC
    for name in PUBLIC:
        assert getattr(dcn, name)


def test_another_backend_of_keras_is_refused_at_once(tmp_path):
    (tmp_path / "keras.py").write_text("class backend:\n    backend = staticmethod(lambda: 'jax')\n")
    code = "import sys; sys.path.insert(0, sys.argv[1]); import dcn"
    done = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, capture_output=True, text=True, check=False)
    message = done.stderr.splitlines()[-1]
    assert message.startswith(
        "ImportError: dcn needs Keras with TensorFlow: set KERAS_BACKEND=tensorflow in the environ"
    )
    assert message.endswith("Received: backend jax")


def test_the_wheel_is_the_library_and_nothing_else(tmp_path):
    for name in ("dcn", "pyproject.toml", "README.md", "LICENSE"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "."]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    (path,) = tmp_path.glob("*.whl")
    assert path.stat().st_size < 100_000
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()
    assert not [name for name in names if name.endswith("entry_points.txt")]  # no command that lacks what it needs
    assert all(name.startswith(("dcn/", "deformable_conv_digits-")) for name in names)
    assert all(name.endswith((".py", "/py.typed")) for name in names if name.startswith("dcn/"))
    assert "dcn/py.typed" in names  # type checkers use the library's annotations


ROOMS = ("errors", "names", "processes", "runs", "cluster", "experiments", "show", "book", "cli")


def room(module):
    parts = module.split(".")
    return ROOMS.index(parts[1]) if parts[0] == "dcn_study" and len(parts) > 1 else None


def test_imports_go_one_way():
    """The library imports nothing of the report, and each room of the report only rooms before it."""
    for path in [*(ROOT / "dcn").rglob("*.py"), *(ROOT / "dcn_study").rglob("*.py")]:
        own = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or node.module is None:
                continue
            imported = [node.module] if "." in node.module else [f"{node.module}.{name.name}" for name in node.names]
            for module in imported:
                if own.startswith("dcn."):
                    assert not module.startswith("dcn_study"), own
                elif room(module) is not None and room(own) is not None:
                    assert room(module) <= room(own), f"{own} imports {module}"
