"""Checks recorded requests of deploy by botocore's models: the files of a directory, see tests/deploy/requests.

Each request is parsed into parameters by the model of its operation, and validated; the enumerations, too. Then botocore
makes a request of these parameters, which must be the same: a field that the model does not have is found in this way.
Prints the operations, for tests/deploy/operations.tsv. Of the requests of S3, only the names are read.
"""

import base64
import json
import pathlib
import re
import sys
from urllib.parse import parse_qsl, urlsplit

from botocore import __version__
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.serialize import create_serializer
from botocore.validate import ParamValidator

# The names of signatures, and botocore's, where they differ.
SERVICES = {
    "elasticloadbalancing": "elbv2",
    "monitoring": "cloudwatch",
    "servicequotas": "service-quotas",
}
# The names in policies, where they differ.
PREFIXES = {"monitoring": "cloudwatch"}
# The actions of a policy that differ from the operation's name.
ACTIONS = {"HeadBucket": "ListBucket", "HeadObject": "GetObject"}

loader = Loader()
models = {}


def model_of(service):
    if service not in models:
        models[service] = ServiceModel(loader.load_service_model(SERVICES.get(service, service), "service-2"), service)
    return models[service]


def scalar(shape, text):
    """Returns a value of a form as the type of its shape."""
    if shape.type_name in ("integer", "long"):
        return int(text)
    if shape.type_name in ("float", "double"):
        return float(text)
    if shape.type_name == "boolean":
        return {"true": True, "false": False}[text]
    return text


def parsed(shape, form, prefix, protocol):
    """Returns the value at a prefix of a form, by the rules of the protocols query and ec2; None if there is none."""
    inside = [key for key in form if key == prefix or key.startswith(f"{prefix}.") or not prefix]
    if not inside and prefix:
        return None
    if shape.type_name == "structure":
        found = {}
        for key, member in shape.members.items():
            name = member.serialization.get("name", key)
            if protocol == "ec2":
                name = member.serialization.get("queryName", name[0].upper() + name[1:])
            if protocol == "query" and member.type_name == "list" and member.serialization.get("flattened"):
                name = member.member.serialization.get("name", name)
            value = parsed(member, form, f"{prefix}.{name}" if prefix else name, protocol)
            if value is not None:
                found[key] = value
        return found
    if shape.type_name == "list":
        if protocol == "query" and not shape.serialization.get("flattened"):
            prefix = f"{prefix}.{shape.member.serialization.get('name', 'member')}"
        found, number = [], 1
        while (value := parsed(shape.member, form, f"{prefix}.{number}", protocol)) is not None:
            found.append(value)
            number += 1
        return found
    return scalar(shape, form[prefix]) if prefix in form else None


def enumerations(shape, value, place):
    """Returns the values that an enumeration or a pattern does not have."""
    if shape.type_name == "structure":
        pairs = [(shape.members[key], part, f"{place}.{key}") for key, part in value.items() if key in shape.members]
    elif shape.type_name == "list":
        pairs = [(shape.member, part, f"{place}[]") for part in value]
    elif shape.type_name == "map":
        pairs = [(shape.value, part, f"{place}.{key}") for key, part in value.items()]
    else:
        pairs = []
        # There are new types of instances every month.
        if shape.name != "InstanceType" and getattr(shape, "enum", None) and value not in shape.enum:
            return [f"{place}: {value!r} is none of {', '.join(shape.enum)}"]
        longest = shape.metadata.get("max")
        if shape.type_name == "string" and longest and len(value) > longest:
            return [f"{place}: longer than {longest}"]
    return [wrong for member, part, where in pairs for wrong in enumerations(member, part, where)]


def text(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def check(service, request):
    """Returns the operation of a request, and what is wrong with it."""
    model = model_of(service)
    protocol = model.metadata["protocol"]
    if "query" in model.metadata.get("protocols", []):
        protocol = "query"  # of several that the service speaks, the one that this program uses
    body = base64.b64decode(request["body"]).decode()
    url = urlsplit(request["target"])
    if protocol in ("query", "ec2"):
        form = dict(parse_qsl(body, keep_blank_values=True, strict_parsing=True))
        operation = model.operation_model(form["Action"])
        fields = {key: value for key, value in form.items() if key not in ("Action", "Version")}
        params = parsed(operation.input_shape, fields, "", protocol) if operation.input_shape else {}
    elif protocol == "json":
        prefix, name = request["operation"].split(".")
        operation = model.operation_model(name)
        form = json.loads(body)
        params = form
        if prefix != model.metadata["targetPrefix"]:
            return name, [f"X-Amz-Target has the prefix {prefix}"]
    else:
        names = [name for name in model.operation_names if model.operation_model(name).http["requestUri"] == url.path]
        operation = model.operation_model(names[0])
        form = dict(parse_qsl(url.query, keep_blank_values=True, strict_parsing=True))
        params = {
            key: scalar(member, form[member.serialization["name"]])
            for key, member in operation.input_shape.members.items()
            if member.serialization.get("name") in form
        }
    shape = operation.input_shape
    wrong = []
    if shape:
        report = ParamValidator().validate(params, shape)
        wrong += [report.generate_report()] if report.has_errors() else enumerations(shape, params, operation.name)
    if wrong:
        return operation.name, wrong
    made = create_serializer(protocol, include_validation=True).serialize_to_request(params, operation)
    if protocol == "json":
        other = json.loads(made["body"])
    elif protocol in ("query", "ec2"):
        other = {key: text(value) for key, value in made["body"].items()}
    else:
        other = {key: text(value) for key, value in made["query_string"].items()}
    if made["method"] != request["method"]:
        wrong.append(f"{request['method']} and not {made['method']}")
    if form != other:
        differing = sorted(key for key in form.keys() | other.keys() if form.get(key) != other.get(key))
        wrong.append(f"differs from botocore's request in {', '.join(differing)}")
    return operation.name, wrong


def operation_of_s3(request):
    path = urlsplit(request["target"]).path
    if request["method"] == "HEAD":
        return "HeadBucket" if path.strip("/").count("/") == 0 else "HeadObject"
    return {"GET": "GetObject", "PUT": "PutObject"}[request["method"]]


if __name__ == "__main__":
    count, operations, faults = 0, {}, {}
    for file in sorted(pathlib.Path(sys.argv[1]).iterdir()):
        for line in file.read_text().splitlines():
            request = json.loads(line)
            count += 1
            scope = re.search(r"Credential=[^/]*/[^/]*/[^/]*/([^/]*)/", request["authorization"])
            # A token in a file needs no signature.
            service = scope[1] if scope else "sts"
            if service == "s3":
                operation, wrong = operation_of_s3(request), []
            else:
                operation, wrong = check(service, request)
            operations[(service, operation)] = f"{PREFIXES.get(service, service)}:{ACTIONS.get(operation, operation)}"
            for one in wrong:
                faults.setdefault(f"{service} {operation}: {one}", 0)
                faults[f"{service} {operation}: {one}"] += 1
    for fault, times in faults.items():
        print(f"{fault} ({times} times)", file=sys.stderr)
    print(f"{count} requests, {len(faults)} faults, by botocore {__version__}", file=sys.stderr)
    print("# service, operation, action of a policy; written by tests/deploy/requests")
    for (service, operation), action in sorted(operations.items()):
        print(service, operation, action, sep="\t")
    sys.exit(1 if faults or not count else 0)
