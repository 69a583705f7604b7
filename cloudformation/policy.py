"""Rules for the templates, checked on the output of cfn-lint's parser. Run by `check`.

Each rule is a function that takes a template and yields its objections. That none of them sleeps is shown by
tests/cloudformation/broken.yml, to which every rule must object.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

from cfnlint.decode import decode

BROKEN = Path("tests/cloudformation/broken.yml")
REGIONS = ["us-east-1", "eu-central-1", "cn-north-1", "us-gov-west-1"]
# Longer than a line, and full of characters with a meaning in YAML, JSON and Fn::Sub. The text must stay unchanged.
USER_DATA = "#!/bin/sh\n: \"${HOME}\" '\\n' {{ % #\n" + "# padding\n" * 1000
# No list of what a policy allows may hold one of these.
WILDCARDS = ("*", "arn:aws:ssm:eu-central-1:1:parameter/*", "arn:aws:secretsmanager:eu-central-1:1:secret:*", "arn:aws:kms:eu-central-1:1:key/*")
WORLD = ("0.0.0.0/0", "::/0")
WEAK_TLS = ["ELBSecurityPolicy-2016-08", "ELBSecurityPolicy-TLS-1-1-2017-01", "ELBSecurityPolicy-TLS13-1-0-2021-06", "ELBSecurityPolicy-TLS13-1-1-2021-06"]
STRONG_TLS = re.compile(r"ELBSecurityPolicy-(TLS13-1-[23]-.+|TLS-1-2-2017-01)")


def dictionaries(value):
    """Every mapping within a value, itself included; so both branches of each Fn::If."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from dictionaries(item)


def resources(template, *kinds):
    for name, resource in template["Resources"].items():
        if resource["Type"] in kinds:
            yield name, resource.get("Properties", {})


def strings(value):
    """The possible texts of a property, with ${…} for values that are not known yet: both branches of Fn::If, the text of Fn::Sub."""
    if isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, dict) and "Fn::If" in value:
        yield from strings(value["Fn::If"][1:])
    elif isinstance(value, dict) and "Fn::Sub" in value:
        text = value["Fn::Sub"]
        yield text if isinstance(text, str) else text[0]
    elif value != {"Ref": "AWS::NoValue"}:
        yield value if isinstance(value, str) else json.dumps(value)


def ingress(template):
    """(security group, rule) of every ingress rule."""
    for name, group in resources(template, "AWS::EC2::SecurityGroup"):
        for rule in dictionaries(group.get("SecurityGroupIngress", [])):
            if "IpProtocol" in rule:
                yield name, rule
    for _, rule in resources(template, "AWS::EC2::SecurityGroupIngress"):
        yield json.dumps(rule["GroupId"]), rule


def from_world(rule):
    return any(rule.get(source) in WORLD for source in ("CidrIp", "CidrIpv6"))


def no_wildcard_resource(template):
    """A policy names what it allows: a wildcard only behind a name of its own, as in bucket/prefix/*."""
    for statement in dictionaries(template["Resources"]):
        if statement.get("Effect") != "Allow" or "Principal" in statement:
            continue
        if "Resource" not in statement:
            yield "a statement without Resource"
        for resource in strings(statement.get("Resource", [])):
            fixed = re.sub(r"\$\{[^}]+\}", "name", resource).rsplit(":", 1)[-1].split("*")[0]
            if "*" in resource and not re.fullmatch(r"[^/]+/[^/]+.*", fixed):
                yield f"Resource {resource}"
        named = statement.get("Resource")
        parameter = template["Parameters"].get(named.get("Ref")) if isinstance(named, dict) else None
        if parameter and any(re.fullmatch(parameter.get("AllowedPattern", ".*"), arn) for arn in WILDCARDS):
            yield f"{named['Ref']} may hold a wildcard"
        for action in strings(statement.get("Action", "*")):
            if "*" in action:
                yield f"Action {action}"


def decrypts_for_services_only(template):
    """Who may use a key in KMS may do so only through a service, and only for what a condition names."""
    for statement in dictionaries(template["Resources"]):
        if statement.get("Effect") == "Allow" and "kms:Decrypt" in strings(statement.get("Action", [])):
            keys = [key for operator in statement.get("Condition", {}).values() for key in operator]
            if "kms:ViaService" not in keys or not any(key.startswith("kms:EncryptionContext:") for key in keys):
                yield json.dumps(statement)


def uploads_own_object_only(template):
    """A machine writes one object, whose key is its ARN, outside of what machines read. The policy variable stays one in the stack."""
    for statement in dictionaries(template["Resources"]):
        actions = list(strings(statement.get("Action", [])))
        if statement.get("Effect") != "Allow" or not any(re.match(r"s3:(Put|Delete|Abort|Restore)", action) for action in actions):
            continue
        if actions != ["s3:PutObject"]:
            yield f"Action {actions}"
        for resource in strings(statement["Resource"]):
            if not re.fullmatch(r"[^/]+/\$\{ArtifactPrefix\}\.failures/\$\{!ec2:SourceInstanceARN\}", resource):
                yield f"Resource {resource}"


def no_public_bucket(template):
    for name, bucket in resources(template, "AWS::S3::Bucket"):
        blocked = bucket.get("PublicAccessBlockConfiguration", {})
        if not all(blocked.get(f"{verb}Public{what}") is True for verb, what in (("Block", "Acls"), ("Block", "Policy"), ("Ignore", "Acls"))):
            yield f"{name} does not block public access"
    for name, policy in resources(template, "AWS::S3::BucketPolicy"):
        if any(s.get("Principal") in ("*", {"AWS": "*"}) for s in dictionaries(policy)):
            yield f"{name} lets everybody in"


def imds_v2_only(template):
    for name, _ in resources(template, "AWS::AutoScaling::LaunchConfiguration", "AWS::EC2::Instance"):
        yield f"{name} is not a launch template"
    for name, launch in resources(template, "AWS::EC2::LaunchTemplate"):
        options = launch["LaunchTemplateData"].get("MetadataOptions", {})
        if options.get("HttpTokens") != "required" or options.get("HttpPutResponseHopLimit") != 1:
            yield f"{name}: {json.dumps(options)}"


def tls_1_2_or_later(template):
    def weak(policy):
        """Whether it is a policy that allows less than TLS 1.2, or a parameter could make it one."""
        if not isinstance(policy, dict):
            return not STRONG_TLS.fullmatch(str(policy))
        parameter = template["Parameters"].get(policy.get("Ref"), {})
        allowed = parameter.get("AllowedValues", WEAK_TLS + [parameter.get("Default")])
        return any(re.fullmatch(parameter.get("AllowedPattern", ".*"), str(value)) and not STRONG_TLS.fullmatch(str(value)) for value in allowed)

    for name, listener in resources(template, "AWS::ElasticLoadBalancingV2::Listener"):
        if listener["Protocol"] in ("HTTPS", "TLS") and weak(listener.get("SslPolicy")):
            yield f"{name}: {json.dumps(listener.get('SslPolicy'))}"
    for name, balancer in resources(template, "AWS::ElasticLoadBalancing::LoadBalancer"):
        policies = {p["PolicyName"]: p["Attributes"][0]["Value"] for p in dictionaries(balancer.get("Policies", [])) if "PolicyName" in p}
        for listener in dictionaries(balancer["Listeners"]):
            if listener.get("Protocol") in ("HTTPS", "SSL") and any(weak(policies.get(p)) for p in listener.get("PolicyNames", [None])):
                yield f"{name}: port {listener['LoadBalancerPort']}"


def encrypted_volumes(template):
    for name, launch in resources(template, "AWS::EC2::LaunchTemplate"):
        volumes = [d for d in dictionaries(launch["LaunchTemplateData"].get("BlockDeviceMappings", [])) if "DeviceName" in d]
        if not volumes or not all(v["Ebs"].get("Encrypted") is True for v in volumes):
            yield name
    for name, volume in resources(template, "AWS::EC2::Volume"):
        if volume.get("Encrypted") is not True:
            yield name


def instances_closed_to_the_world(template):
    groups = json.dumps([launch["LaunchTemplateData"].get("SecurityGroupIds") for _, launch in resources(template, "AWS::EC2::LaunchTemplate")])
    for group, rule in ingress(template):
        if from_world(rule) and (f'"{group}"' in groups or group in groups):
            yield f"{group}: {json.dumps(rule)}"


def ssh_closed_to_the_world(template):
    for group, rule in ingress(template):
        everything = str(rule["IpProtocol"]) == "-1"
        if from_world(rule) and (everything or int(rule["FromPort"]) <= 22 <= int(rule["ToPort"])):
            yield f"{group}: {json.dumps(rule)}"


def refreshed_groups_wait_for_a_hook(template):
    """An instance refresh waits for no signal: without a hook, a machine that is not set up gets traffic."""
    for name, group in template["Resources"].items():
        if "AutoScalingInstanceRefresh" not in group.get("UpdatePolicy", {}):
            continue
        hooks = group["Properties"].get("LifecycleHookSpecificationList", [])
        if not any(hook["LifecycleTransition"] == "autoscaling:EC2_INSTANCE_LAUNCHING" and hook.get("DefaultResult") == "ABANDON" for hook in hooks):
            yield name


def pooled_machines_boot_again_with_a_hook(template):
    """A machine of a warm pool runs its steps when it boots, and completes the hook of its group. One that has served does not return."""
    for name, pool in resources(template, "AWS::AutoScaling::WarmPool"):
        group = template["Resources"].get(pool["AutoScalingGroupName"].get("Ref"), {}).get("Properties", {})
        hooks = group.get("LifecycleHookSpecificationList", [])
        has_hook = any(hook["LifecycleTransition"] == "autoscaling:EC2_INSTANCE_LAUNCHING" for hook in hooks)
        if pool.get("PoolState") != "Stopped" or pool.get("InstanceReusePolicy", {}).get("ReuseOnScaleIn") is not False or not has_hook:
            yield name


def no_region_or_partition_written_down(template):
    for match in re.finditer(r"arn:aws[a-z-]*:|\b(us|eu|ap|cn|ca|sa)-[a-z]+-\d\b", json.dumps(template)):
        yield match.group()


def ascii_only(template):
    """CloudFormation may give other characters back as question marks."""
    for text in re.findall(r".{0,20}[^\x00-\x7f]+", json.dumps(template, ensure_ascii=False)):
        yield text


def parameters_described(template):
    for name, parameter in template["Parameters"].items():
        if not parameter.get("Description"):
            yield name


def slots_are_twins(template):
    """The blue and green slots are the same; only the initial weights differ."""

    def blue(text):
        return text.replace("Green", "Blue").replace("green", "blue")

    for section in ("Parameters", "Conditions", "Rules", "Resources", "Outputs"):
        items = template.get(section, {})
        for name in items:
            if "Blue" not in name and "Green" not in name:
                continue
            sides = [dict(items.get(name.replace(*swap)) or {}) for swap in (("Green", "Blue"), ("Blue", "Green"))]
            if name.endswith("Weight"):
                sides = [{**side, "Default": None} for side in sides]
            if json.dumps(sides[0]) != blue(json.dumps(sides[1])):
                yield f"{section}/{name}"


RULES = [
    no_wildcard_resource,
    decrypts_for_services_only,
    uploads_own_object_only,
    no_public_bucket,
    imds_v2_only,
    tls_1_2_or_later,
    encrypted_volumes,
    instances_closed_to_the_world,
    ssh_closed_to_the_world,
    refreshed_groups_wait_for_a_hook,
    pooled_machines_boot_again_with_a_hook,
    no_region_or_partition_written_down,
    ascii_only,
    parameters_described,
    slots_are_twins,
]


def parse(path):
    template, errors = decode(str(path))
    if errors:
        sys.exit(f"{path}: {errors[0]}")
    return template


def user_data(template):
    """The user-data that comes with the template itself, and is not a parameter's."""
    for name, launch in resources(template, "AWS::EC2::LaunchTemplate"):
        if isinstance(launch["LaunchTemplateData"]["UserData"], dict) and "Fn::Base64" in launch["LaunchTemplateData"]["UserData"]:
            yield name, launch["LaunchTemplateData"]["UserData"]["Fn::Base64"]


def fill(path):
    """The template as `deploy` sends it, in target/, and whether each place took the user-data."""
    places = [f"@{name.removesuffix('LaunchTemplate')}UserData@" for name, _ in user_data(parse(path))]
    text = path.read_text()
    objections = [f"{place}: not once as a value of Fn::Base64" for place in places if len(re.findall(rf'^ +Fn::Base64: "{place}"$', text, re.M)) != 1]
    for place in places:
        text = text.replace(f'"{place}"', json.dumps(USER_DATA))
    filled = Path("target/cloudformation") / path.name
    filled.write_text(text)
    objections += [f"{name}: other user-data came out" for name, value in user_data(parse(filled)) if value != USER_DATA]
    return filled, objections


def main(paths):
    checks = failed = 0

    def report(path, check, objections):
        nonlocal checks, failed
        checks += 1
        failed += bool(objections)
        print(f"{'FAIL' if objections else 'ok  '} {path}: {check}", *objections, sep="\n       ")

    for path in map(Path, paths):
        filled, objections = fill(path)
        report(path, "takes user-data", objections)
        lint = subprocess.run([Path(sys.executable).with_name("cfn-lint"), "--include-checks", "I", "--regions", *REGIONS, "--", filled], capture_output=True, text=True)
        report(path, "cfn-lint", (lint.stdout + lint.stderr).splitlines() if lint.returncode else [])
        checkov = ["target/cloudformation/checkov/bin/checkov", "--config-file", "cloudformation/checkov.conf", "--file", filled]
        found = subprocess.run(checkov, capture_output=True, text=True)
        report(path, "checkov", (found.stdout + found.stderr).splitlines() if found.returncode else [])
        template = parse(path)
        for rule in RULES:
            report(path, rule.__name__.replace("_", " "), list(rule(template)))

    broken = parse(BROKEN)
    sleeping = [rule.__name__ for rule in RULES if not list(rule(broken))]
    report(BROKEN, "every rule objects", sleeping)

    print(f"{checks} checks, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
