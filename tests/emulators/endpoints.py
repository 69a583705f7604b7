"""Prints what botocore's rules say about endpoints: the model of src/aws/endpoint.rs, src/aws/partition.rs and
src/aws/s3/address.rs.

    "$(tests/emulators/needs)" tests/emulators/endpoints.py > tests/emulators/endpoints.tsv
"""

from botocore import __version__
from botocore.endpoint_provider import EndpointProvider
from botocore.exceptions import EndpointProviderError
from botocore.loaders import Loader

# The services as this program names them in signatures, and as botocore names them.
SERVICES = {
    "cloudformation": "cloudformation",
    "autoscaling": "autoscaling",
    "elasticloadbalancing": "elbv2",
    "monitoring": "cloudwatch",
    "ec2": "ec2",
    "sts": "sts",
    "route53": "route53",
    "acm": "acm",
    "servicequotas": "service-quotas",
    "ssm": "ssm",
    "secretsmanager": "secretsmanager",
    "kms": "kms",
    "portal.sso": "sso",
    "oidc": "sso-oidc",
    "signin": "signin",
}

loader = Loader()
partitions = loader.load_data("partitions")
print(f"# botocore {__version__}")
for partition in partitions["partitions"]:
    outputs = partition["outputs"]
    for region in partition["regions"]:
        if not region.endswith("-global"):
            print("region", region, partition["id"], sep="\t")
print("# service, region, FIPS, dual-stack, host, region of the signature")
for name, service in SERVICES.items():
    provider = EndpointProvider(loader.load_service_model(service, "endpoint-rule-set-1"), partitions)
    for partition in partitions["partitions"]:
        # Of a partition, one region other than the first: the first one can be special.
        region = [region for region in partition["regions"] if not region.endswith("-global")][-1]
        for fips in (False, True):
            for dual_stack in (False, True):
                asked = {"Region": region, "UseFIPS": fips, "UseDualStack": dual_stack}
                if service == "sts":
                    asked["UseGlobalEndpoint"] = False
                if service == "acm":
                    asked["ServiceType"] = "ACM"
                endpoint = provider.resolve_endpoint(**asked)
                schemes = endpoint.properties.get("authSchemes", [])
                signed_for = next((scheme["signingRegion"] for scheme in schemes if "signingRegion" in scheme), region)
                host = endpoint.url.removeprefix("https://")
                print(name, region, int(fips), int(dual_stack), host, signed_for, sep="\t")

# Usual names, an alias of an access point, names that are no label, and directory buckets.
BUCKETS = [
    "artifacts",
    "my-notes-1-a1b2c3d4e5f6a1b2c3d4e5f6a1b2usw2a-s3alias",
    "my.bucket",
    "Old_Bucket",
    "artifacts--use1-az4--x-s3",
    "artifacts--x-s3",
]
print("# bucket, name, region, FIPS, dual-stack, host and path, service of the signature; none if there is no endpoint")
provider = EndpointProvider(loader.load_service_model("s3", "endpoint-rule-set-1"), partitions)
for partition in partitions["partitions"]:
    region = [region for region in partition["regions"] if not region.endswith("-global")][-1]
    for bucket in BUCKETS:
        for fips in (False, True):
            for dual_stack in (False, True):
                asked = {"Region": region, "UseFIPS": fips, "UseDualStack": dual_stack, "Bucket": bucket}
                asked |= {"UseGlobalEndpoint": False, "Accelerate": False, "ForcePathStyle": False}
                asked |= {"DisableS3ExpressSessionAuth": True}
                try:
                    endpoint = provider.resolve_endpoint(**asked)
                    service = endpoint.properties["authSchemes"][0]["signingName"]
                    said = (endpoint.url.removeprefix("https://"), service)
                except EndpointProviderError as error:
                    said = ("none", "none")
                print("bucket", bucket, region, int(fips), int(dual_stack), *said, sep="\t")
