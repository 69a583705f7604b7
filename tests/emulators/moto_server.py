"""moto's server, with two faults of its CloudFormation fixed. Takes moto_server's arguments."""

from moto.cloudformation import parsing
from moto.elbv2.models import ELBv2Backend
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

if __name__ == "__main__":
    main()
