"""Prints which of two sources botocore takes credentials from: what tests/deploy/login/precedence.rs compares.

    "$(tests/emulators/needs)" tests/emulators/precedence.py > tests/emulators/precedence.tsv
"""

import hashlib
import itertools
import json
import os
import tempfile

from botocore import __version__
from botocore.exceptions import MissingDependencyException
from botocore.session import Session

KEYS = "aws_access_key_id = AKIA\naws_secret_access_key = secret\n"
PRINTED = json.dumps({"Version": 1, "AccessKeyId": "id", "SecretAccessKey": "secret"})
# Each source: its part of the environment, of ~/.aws/config and of ~/.aws/credentials.
SOURCES = {
    "environment": ({"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "secret"}, "", ""),
    "environment-token": ({"AWS_WEB_IDENTITY_TOKEN_FILE": "/token", "AWS_ROLE_ARN": "environment"}, "", ""),
    "role": ({}, "role_arn = profile\nsource_profile = base\n", ""),
    "token": ({}, "role_arn = profile\nweb_identity_token_file = /token\n", ""),
    "sso": ({}, "sso_session = corp\nsso_account_id = 111122223333\nsso_role_name = Deployer\n", ""),
    "credentials": ({}, "", KEYS),
    "login": ({}, "login_session = arn:aws:iam::111122223333:user/ann\n", ""),
    "process": ({}, f"credential_process = echo '{PRINTED}'\n", ""),
    "config": ({}, KEYS, ""),
}
METHODS = {
    "env": "environment",
    "assume-role": "role",
    "sso": "sso",
    "shared-credentials-file": "credentials",
    "login": "login",
    "custom-process": "process",
    "config-file": "config",
}

home = tempfile.mkdtemp()
# The files of `aws login` and `aws sso login`.
os.makedirs(f"{home}/.aws/login/cache")
login = {"accessToken": {"accessKeyId": "id", "secretAccessKey": "secret", "sessionToken": "token",
                         "accountId": "111122223333", "expiresAt": "2100-01-01T00:00:00Z"},
         "tokenType": "aws_sigv4", "refreshToken": "r", "clientId": "c", "dpopKey": "k"}
digest = hashlib.sha256(b"arn:aws:iam::111122223333:user/ann").hexdigest()
with open(f"{home}/.aws/login/cache/{digest}.json", "w") as file:
    json.dump(login, file)


def winner(way, parts):
    """Returns the source that botocore takes."""
    environment = {name: value for part in parts for name, value in part[0].items()}
    # Lines that two sources share are written once.
    lines = dict.fromkeys(line for part in parts for line in part[1].splitlines())
    config = "[profile x]\n" + "".join(f"{line}\n" for line in lines)
    config += "[sso-session corp]\nsso_region = eu-west-1\nsso_start_url = https://corp.awsapps.com/start\n"
    config += "[profile top]\nrole_arn = top\nsource_profile = x\n"
    credentials = f"[base]\n{KEYS}" + "".join(f"[x]\n{part[2]}" for part in parts if part[2])
    for name, text in (("config", config), ("credentials", credentials)):
        with open(f"{home}/.aws/{name}", "w") as file:
            file.write(text)
    os.environ.clear()
    os.environ.update({"HOME": home, "PATH": "/usr/bin:/bin", "AWS_REGION": "eu-central-1"})
    os.environ.update({"AWS_EC2_METADATA_DISABLED": "true"} | environment)
    if way == "variable":
        os.environ["AWS_PROFILE"] = "x"
    chosen = {"option": "x", "variable": None, "source": "top"}[way]
    try:
        found = Session(profile=chosen).get_credentials()
        if way == "source":
            found = found._refresh_using.__self__._source_credentials
    except MissingDependencyException:
        # It has chosen `aws login`, which needs a package more.
        return "login"
    if found.method == "assume-role-with-web-identity":
        arn = found._refresh_using.__self__._role_arn
        return {"environment": "environment-token", "profile": "token"}[arn]
    return METHODS[found.method]


if __name__ == "__main__":
    print(f"# botocore {__version__}: how the profile is chosen, two sources, the one that botocore takes")
    for way in ("option", "variable", "source"):
        # A named profile leaves the environment out.
        sources = SOURCES if way == "variable" else [name for name in SOURCES if "environment" not in name]
        for one, other in itertools.combinations(sources, 2):
            print(way, one, other, winner(way, (SOURCES[one], SOURCES[other])), sep="\t")
