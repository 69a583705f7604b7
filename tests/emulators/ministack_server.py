"""MiniStack, whose groups are taught what AWS's do: they have machines, register them as targets, wait for their signals, are replaced by an update;
and whose listeners keep weights. BIND_HOST, GATEWAY_PORT and MINISTACK_REGION as for ministack.

CONSOLES names a directory: GetConsoleOutput answers with its file of the instance's id, if there is one. SIGNAL_TIMEOUT is what groups wait for
signals, whatever their template says (PT1M without it).
"""

import base64
import os
from pathlib import Path

from ministack.app import main
from ministack.services import alb, autoscaling, ec2, ssm
from ministack.services.cloudformation import provisioners, stacks, wait_conditions

os.environ["IOT_MTLS_ENABLED"] = "0"  # it would listen on every address, whatever BIND_HOST says

GROUP = "AWS::AutoScaling::AutoScalingGroup"
# Canonical's public parameter. An account cannot put one below /aws/service.
ssm._PUBLIC_AMI_PARAMETERS["/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id"] = "ami-0123456789abcdef0"

# Weights of target groups, for CloudFormation, ModifyListener and DescribeListeners.


def weights_of_template(properties, balancer, prop="DefaultActions"):
    actions = listener_actions(properties, balancer, prop)
    for action, given in zip(actions, properties.get(prop) or []):
        if "ForwardConfig" in given:
            action["Weights"] = [(t["TargetGroupArn"], int(t.get("Weight", 1))) for t in given["ForwardConfig"]["TargetGroups"]]
    return actions


def weights_of_call(parameters, prefix="DefaultActions"):
    actions = parse_actions(parameters, prefix)
    for i, action in enumerate(actions, start=1):
        group = f"{prefix}.member.{i}.ForwardConfig.TargetGroups.member"
        weights, j = [], 1
        while arn := alb._p(parameters, f"{group}.{j}.TargetGroupArn"):
            weights.append((arn, int(alb._p(parameters, f"{group}.{j}.Weight", "1"))))
            j += 1
        if weights:
            action["Weights"] = weights
    return actions


def weights_shown(action):
    xml = action_xml({k: v for k, v in action.items() if k != "TargetGroupArn"} if len(action.get("Weights", [])) > 1 else action)
    if "Weights" not in action:
        return xml
    members = "".join(f"<member><TargetGroupArn>{arn}</TargetGroupArn><Weight>{weight}</Weight></member>" for arn, weight in action["Weights"])
    end = xml.rindex("</member>")
    return f"{xml[:end]}<ForwardConfig><TargetGroups>{members}</TargetGroups></ForwardConfig>{xml[end:]}"


listener_actions, provisioners._elbv2_listener_actions = provisioners._elbv2_listener_actions, weights_of_template
parse_actions, alb._parse_actions = alb._parse_actions, weights_of_call
action_xml, alb._action_xml = alb._action_xml, weights_shown

# A group has its desired number of machines, which EC2 and its target groups know.


def launch(group):
    instances = group["Instances"]
    gone = [instances.pop() for _ in range(len(instances) - group["DesiredCapacity"])]
    template = ec2._launch_templates.get(group["LaunchTemplate"].get("LaunchTemplateId"))
    missing = group["DesiredCapacity"] - len(instances)
    if template and missing > 0:
        data = template["Versions"][-1]["LaunchTemplateData"]
        for machine in ec2._launch_instances_internal(
            data["ImageId"], data["InstanceType"], group["VPCZoneIdentifier"].split(",")[0], missing,
            user_data=data["UserData"], sg_ids=[g for g in data["SecurityGroupIds"] if g],
        ):
            ec2._tags[machine["InstanceId"]] = [{"Key": t["Key"], "Value": t["Value"]} for t in group["Tags"] if t["PropagateAtLaunch"]]
            instances.append({
                "InstanceId": machine["InstanceId"],
                "LifecycleState": "InService",
                "HealthStatus": "Healthy",
                "AvailabilityZone": machine["Placement"]["AvailabilityZone"],
                "ProtectedFromScaleIn": False,
                "LaunchTemplate": group["LaunchTemplate"],
            })
    for machine in gone:
        ec2._terminate_instances({"InstanceId.1": [machine["InstanceId"]]})
    for arn in group.get("TargetGroupARNs", []):
        others = [t for t in alb._targets.get(arn, []) if t["Id"] not in {g["InstanceId"] for g in gone}]
        known = {t["Id"] for t in others}
        alb._targets[arn] = others + [{"Id": i["InstanceId"], "Port": 80} for i in instances if i["InstanceId"] not in known]


def end(name, properties):
    if name in autoscaling._asgs:
        autoscaling._asgs[name]["DesiredCapacity"] = 0
        launch(autoscaling._asgs[name])
    delete_group(name, properties)


# A group is complete when its desired number of machines has signalled. A new launch template makes a new group.


def create(logical_id, properties, stack_name):
    policy = provisioners._cfn_wait_condition_definition(stack_name, logical_id).get("CreationPolicy", {})
    name, attributes = create_group(logical_id, properties, stack_name)
    group = autoscaling._asgs[name]
    group["TargetGroupARNs"] = properties.get("TargetGroupARNs", [])
    count = group["DesiredCapacity"]
    if "ResourceSignal" not in policy or count == 0:
        launch(group)
        return name, attributes
    timeout = wait_conditions.validate_resource_signal_timeout(os.environ.get("SIGNAL_TIMEOUT", "PT1M"), logical_id)
    stack_id = provisioners._cr_stack_id(stack_name)
    token = wait_conditions.register_slot(stack_id)
    # No machine exists yet that could signal.
    wait_conditions._waiting[stack_id, logical_id] = {"token": token, "stack_name": stack_name, "resource_type": GROUP}
    launch(group)
    try:
        wait_conditions.wait_for(token, stack_id, stack_name, logical_id, GROUP, count, timeout)
    except (RuntimeError, TimeoutError) as error:
        end(name, properties)
        received = f"fewer than {count} SUCCESS" if isinstance(error, TimeoutError) else "1 FAILURE"
        raise RuntimeError(f"Received {received} signal(s) out of {count}.  Unable to satisfy 100% MinSuccessfulInstancesPercent requirement") from error
    return name, attributes


def update(physical_id, old, new, stack_name, logical_id=None):
    if old.get("LaunchTemplate") == new.get("LaunchTemplate"):
        result = update_group(physical_id, old, new, stack_name, logical_id)
        launch(autoscaling._asgs[physical_id])
        return result
    # MiniStack would use the old group's name again.
    name = f"{stack_name}-{logical_id}-{provisioners.new_uuid()[:8]}"
    result = create(logical_id, {**new, "AutoScalingGroupName": name}, stack_name)
    end(physical_id, old)
    return result


handlers = provisioners._RESOURCE_HANDLERS[GROUP]
create_group, handlers["create"] = handlers["create"], create
update_group, handlers["update"] = handlers["update"], update
delete_group, handlers["delete"] = handlers["delete"], end
autoscaling._reconcile_instances = launch
blocking = stacks._runs_on_worker_thread
stacks._runs_on_worker_thread = lambda kind: kind == GROUP or blocking(kind)


def console_output(parameters):
    instance = ec2._p(parameters, "InstanceId")
    file = Path(os.environ.get("CONSOLES", "/nonexistent")) / Path(instance).name
    output = base64.b64encode(file.read_bytes()).decode() if file.is_file() else ""
    return ec2._xml(200, "GetConsoleOutputResponse", f"<instanceId>{instance}</instanceId><timestamp>{ec2._now_ts()}</timestamp><output>{output}</output>")


def instance_attribute(parameters):
    if ec2._p(parameters, "Attribute") != "userData":
        return describe_instance_attribute(parameters)
    instance = ec2._p(parameters, "InstanceId")
    value = ec2._instances[instance]["UserData"]
    return ec2._xml(200, "DescribeInstanceAttributeResponse", f"<instanceId>{instance}</instanceId><userData><value>{value}</value></userData>")


ec2._ACTION_MAP["GetConsoleOutput"] = console_output
describe_instance_attribute, ec2._ACTION_MAP["DescribeInstanceAttribute"] = ec2._ACTION_MAP["DescribeInstanceAttribute"], instance_attribute

if __name__ == "__main__":
    main()
