"""Prints answers to operations that botocore's models allow, as JSON: for each operation of tests/deploy/operations.tsv the
answers `first` and `last` with every member, where an enumeration has its first or its last value, and `least` with the
required members only.

    "$(tests/emulators/needs)" tests/emulators/model_answers.py < tests/deploy/operations.tsv

A text has what a terminal obeys, as far as XML may contain it.
"""

import json
import sys
from xml.sax.saxutils import escape

from botocore.loaders import Loader
from botocore.model import ServiceModel

# The names of signatures, and botocore's, where they differ.
SERVICES = {"elasticloadbalancing": "elbv2", "monitoring": "cloudwatch", "servicequotas": "service-quotas"}
# A right-to-left override, C1's CSI, markup, and a letter of two bytes.
TEXT = "\u00e4\u202e\u009b31m<&>"

loader = Loader()


def value(shape, variant, outer=()):
    """Returns an allowed value of a shape; None for a shape inside itself."""
    if shape.name in outer:
        return None
    inner = (*outer, shape.name)
    if shape.type_name == "structure":
        names = shape.required_members if variant == "least" else shape.members
        found = {name: value(shape.members[name], variant, inner) for name in names}
        return {name: part for name, part in found.items() if part is not None}
    if shape.type_name == "list":
        part = value(shape.member, variant, inner)
        return [] if part is None else [part] if variant == "least" else [part, part]
    if shape.type_name == "map":
        part = value(shape.value, variant, inner)
        return {} if part is None or variant == "least" else {value(shape.key, variant): part}
    if shape.type_name == "boolean":
        return variant == "first"
    if shape.type_name in ("integer", "long", "float", "double"):
        bound = shape.metadata.get("max", 2**31 - 1) if variant == "last" else shape.metadata.get("min", 0)
        return int(bound) if shape.type_name in ("integer", "long") else float(bound)
    if shape.type_name == "timestamp":
        return "2026-11-24T20:00:00Z"
    if shape.type_name == "blob":
        return "gA=="
    allowed = getattr(shape, "enum", None)
    return allowed[-1 if variant == "last" else 0] if allowed else TEXT


def name_of(member, key):
    return member.serialization.get("name", key)


def in_xml(shape, name, content):
    """Returns a value as elements of this name, by the rules of query, ec2 and rest-xml."""
    if shape.type_name == "structure":
        parts = [in_xml(shape.members[key], name_of(shape.members[key], key), part) for key, part in content.items()]
        return f"<{name}>{''.join(parts)}</{name}>"
    if shape.type_name == "list":
        if shape.serialization.get("flattened"):
            return "".join(in_xml(shape.member, name, part) for part in content)
        inner = shape.member.serialization.get("name", "member")
        return f"<{name}>{''.join(in_xml(shape.member, inner, part) for part in content)}</{name}>"
    if shape.type_name == "map":
        entries = "".join(
            f"<entry>{in_xml(shape.key, name_of(shape.key, 'key'), key)}"
            f"{in_xml(shape.value, name_of(shape.value, 'value'), part)}</entry>"
            for key, part in content.items()
        )
        return f"<{name}>{entries}</{name}>"
    text = str(content).lower() if isinstance(content, bool) else str(content)
    return f"<{name}>{escape(text)}</{name}>"


def in_json(shape, content):
    """Returns a value as AWS's JSON has it: times are seconds."""
    if shape.type_name == "structure":
        return {key: in_json(shape.members[key], part) for key, part in content.items()}
    if shape.type_name == "list":
        return [in_json(shape.member, part) for part in content]
    if shape.type_name == "map":
        return {key: in_json(shape.value, part) for key, part in content.items()}
    return 1_795_550_400.0 if shape.type_name == "timestamp" else content


def answer(model, operation, variant):
    shape = operation.output_shape
    if shape is None:
        return f"<{operation.name}Response/>"
    protocol = model.metadata["protocol"]
    if "query" in model.metadata.get("protocols", []):
        protocol = "query"
    content = value(shape, variant)
    if protocol == "json":
        return json.dumps(in_json(shape, content))
    if protocol == "query":
        wrapper = shape.serialization.get("resultWrapper", f"{operation.name}Result")
        return f"<{operation.name}Response>{in_xml(shape, wrapper, content)}</{operation.name}Response>"
    # Members of the status line or of a header are not in the body.
    body = {key: part for key, part in content.items() if "location" not in shape.members[key].serialization}
    return in_xml(shape, f"{operation.name}Response", body)


answers = {}
for line in sys.stdin:
    if line.startswith("#"):
        continue
    service, name, _ = line.split("\t")
    # The bodies of S3's operations are the objects themselves.
    if service == "s3":
        continue
    model = ServiceModel(loader.load_service_model(SERVICES.get(service, service), "service-2"), service)
    operation = model.operation_model(name)
    answers[name] = [answer(model, operation, variant) for variant in ("first", "last", "least")]
print(json.dumps(answers))
