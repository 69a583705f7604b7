"""moto's server, with three faults of its CloudFormation and one of its signatures fixed. Takes moto_server's arguments."""

from moto.cloudformation import parsing
from moto.core.responses import BaseResponse
from moto.elbv2.models import ELBv2Backend
from moto.iam.models import Role
from moto.server import main

# Without this, a listener that forwards by weights needs a TargetGroupArn, else KeyError.
convert = ELBv2Backend.convert_and_validate_properties


def keep_weights(self, properties):
    if any("ForwardConfig" in action for action in properties["DefaultActions"]):
        return properties["DefaultActions"]
    return convert(self, properties)


ELBv2Backend.convert_and_validate_properties = keep_weights

# Without this, a changed parameter of a resource whose condition is false is an AttributeError.
update = parsing.parse_and_update_resource


def update_what_is_there(logical_id, resource_json, resources_map, *arguments, **named):
    if resources_map[logical_id] is None:
        return None
    return update(logical_id, resource_json, resources_map, *arguments, **named)


parsing.parse_and_update_resource = update_what_is_there

# Without this, a policy of a role that is AWS::NoValue is a TypeError.
make_role = Role.create_from_cloudformation_json.__func__


def make_role_of_present_policies(cls, resource_name, cloudformation_json, *arguments, **named):
    properties = cloudformation_json["Properties"]
    properties["Policies"] = [policy for policy in properties.get("Policies", []) if policy is not None]
    return make_role(cls, resource_name, cloudformation_json, *arguments, **named)


Role.create_from_cloudformation_json = classmethod(make_role_of_present_policies)

# Without this, moto checks the signature of a form that it has encoded anew, with `+` for `%20`.
set_up = BaseResponse.setup_class


def set_up_with_body(self, request, *arguments, **named):
    request.get_data()
    return set_up(self, request, *arguments, **named)


BaseResponse.setup_class = set_up_with_body

if __name__ == "__main__":
    main()
