"""Prints botocore's models of the requests that log in: what tests/deploy/login checks requests by.

    "$(tests/emulators/needs)" tests/emulators/login_models.py > tests/deploy/login/models.json
"""

import json

from botocore import __version__
from botocore.loaders import Loader

OPERATIONS = {"GetRoleCredentials": "sso", "CreateToken": "sso-oidc", "CreateOAuth2Token": "signin"}


def members(shapes, name):
    """Returns where each member of a request stands; the members of a payload stand in the body themselves."""
    shape = shapes[name]
    if "payload" in shape:
        return members(shapes, shape["members"][shape["payload"]]["shape"])
    return {
        member["locationName"] if "locationName" in member else key: {
            "in": member.get("location", "body"),
            "required": key in shape.get("required", []),
        }
        for key, member in shape["members"].items()
    }


models = {}
for operation, service in OPERATIONS.items():
    model = Loader().load_service_model(service, "service-2")
    described = model["operations"][operation]
    http = described["http"]
    models[operation] = {
        "method": http["method"],
        "path": http["requestUri"],
        "members": members(model["shapes"], described["input"]["shape"]),
    }
print(json.dumps({"botocore": __version__, "operations": models}, indent=2, sort_keys=True))
