"""What RO-Crate 1.1 and Process Run Crate 0.5 demand of a crate, as far as their texts say MUST."""

import hashlib
import re
from urllib.parse import unquote


def references(value):
    """The identifiers that a property refers to."""
    return [each["@id"] for each in (value if isinstance(value, list) else [value])]


def types(entity):
    return {entity["@type"]} if isinstance(entity["@type"], str) else set(entity["@type"])


def check_crate(crate, folder):
    """Asserts the demands, and the recommendations on actions; returns the entities by identifier.

    Args:
        crate: the content of the metadata file.
        folder: where this file is.
    """
    assert crate["@context"] == "https://w3id.org/ro/crate/1.1/context"
    entities = {entity["@id"]: entity for entity in crate["@graph"]}
    assert len(entities) == len(crate["@graph"]), "an identifier is used twice"
    assert not [name for name in entities if re.search(r"[\s<>]", name)], "an identifier must be encoded"
    descriptor, dataset = entities["ro-crate-metadata.json"], entities["./"]
    assert descriptor["@type"] == "CreativeWork"
    assert references(descriptor["conformsTo"]) == ["https://w3id.org/ro/crate/1.1"]
    assert references(descriptor["about"]) == ["./"]
    assert types(dataset) == {"Dataset"}
    for name in ("name", "description", "datePublished", "license"):
        assert dataset[name], name
    for entity in entities.values():  # the graph is flat, and closed but for addresses
        for name, value in entity.items():
            if isinstance(value, dict) or (isinstance(value, list) and value and isinstance(value[0], dict)):
                for each in value if isinstance(value, list) else [value]:
                    assert each.keys() == {"@id"}, f"{entity['@id']}: {name}"
                    assert each["@id"] in entities or each["@id"] == "https://w3id.org/ro/crate/1.1", each
    parts = references(dataset["hasPart"])
    assert sorted(parts) == sorted(name for name, entity in entities.items() if "File" in types(entity))
    for name in parts:
        content = (folder / unquote(name)).read_bytes()
        assert hashlib.sha256(content).hexdigest() == entities[name]["sha256"]
        assert len(content) == int(entities[name]["contentSize"])
    profile = "https://w3id.org/ro/wfrun/process/0.5"
    assert profile in references(dataset["conformsTo"])
    assert "CreativeWork" in types(entities[profile])
    actions = [entity for entity in entities.values() if "CreateAction" in types(entity)]
    assert sorted(references(dataset["mentions"])) == sorted(action["@id"] for action in actions)
    for action in actions:
        instruments = [entities[each] for each in references(action["instrument"])]
        assert instruments
        assert all(types(each) & {"SoftwareApplication", "SoftwareSourceCode"} for each in instruments)
        assert all(each["name"] and each["version"] for each in instruments)
        assert action["name"]
        assert action["description"]
        assert {entities[each]["@type"] for each in references(action["agent"])} <= {"Person", "Organization"}
        for each in references(action["object"]) + references(action["result"]):
            assert types(entities[each]) & {"File", "CreativeWork", "PropertyValue"}
        assert references(action["result"])
    return entities
