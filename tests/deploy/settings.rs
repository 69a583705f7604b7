//! The settings: flag, else environment, else `deploy.toml`, else the stack as it is, else the default.

use base64::{Engine, prelude::BASE64_STANDARD};

use crate::{
    operator::{Operator, VARIABLES},
    sandbox::Finished,
    tape::{Call, of},
};

const CERTIFICATE: &str = "arn:aws:acm:eu-central-1:123456789012:certificate/1";

/// Returns the parameters that the stack would get.
fn planned(operator: &Operator, arguments: &[&str], variables: &[(&str, &str)]) -> Call {
    let _ = operator.deploy(&[&["plan"], arguments].concat(), variables).expect(0);
    of(&operator.calls(), "CreateChangeSet")[0].clone()
}

#[test]
fn every_variable_of_the_old_script_reaches_its_parameter() {
    let operator = Operator::new();
    for (variable, value, parameter) in [
        ("BUILD_NUMBER", "41", "BlueVersionId"),
        ("SG_VALUE", "sg-1,sg-2", "SecurityGroup"),
        ("AMIID", "ami-3", "BlueAMIId"),
        ("INSTANCETYPE", "t3.small", "BlueInstanceType"),
        ("KP", "ann", "BlueKeyName"),
        ("SUBNETS", "subnet-b,subnet-a", "Subnets"),
        ("MINSIZE", "2", "BlueMinSize"),
        ("DESIREDCAPACITY", "3", "BlueDesiredCapacity"),
        ("MAXSIZE", "9", "BlueMaxSize"),
        ("AWSCERTIFICATE", CERTIFICATE, "AWSCertificate"),
        ("DNSRECORD", "app.example.com", "DNSRecord"),
    ] {
        let made = planned(&operator, &[], &[(variable, value)]);
        assert_eq!(made.parameter(parameter), Some(value), "{variable}");
    }
    let script = operator.sandbox.write("other", "#!/bin/sh\necho other\n");
    let made = planned(&operator, &[], &[("CLOUD_INIT_PATH", &script)]);
    assert!(made.get("TemplateBody").contains(r"\n#!/bin/sh\necho other\nEND-"));
}

#[test]
fn an_empty_variable_is_as_one_that_is_not_set() {
    let operator = Operator::new();
    let empty = VARIABLES.map(|name| (name, ""));
    let flags = ["--subnets", "subnet-a,subnet-b", "--cloud-init-path", &operator.sandbox.at("user-data")];
    let made = planned(&operator, &flags, &empty);
    for (parameter, value) in [
        ("BlueVersionId", Some("1")),
        ("BlueAMIId", Some("ami-24")),
        ("BlueInstanceType", Some("t3.micro")),
        ("BlueKeyName", Some("")),
        ("BlueMinSize", Some("1")),
        ("BlueDesiredCapacity", Some("2")),
        ("BlueMaxSize", Some("3")),
        ("SecurityGroup", None),
        ("AWSCertificate", None),
        ("DNSRecord", None),
    ] {
        assert_eq!(made.parameter(parameter), value, "{parameter}");
    }
}

#[test]
fn a_profile_wins_over_credentials_of_the_environment() {
    let operator = Operator::new();
    let _ = operator.sandbox.write(
        ".aws/credentials",
        "[default]\naws_access_key_id = AKIDDEFAULT\naws_secret_access_key = x\n\
         [other]\naws_access_key_id = AKIDOTHER\naws_secret_access_key = y\n",
    );
    let _ = operator.sandbox.write(".aws/config", "[profile other]\nregion = eu-west-3\n");
    for (arguments, variables, key) in [
        (&[][..], &[("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", "")][..], "AKIDDEFAULT"),
        (&[], &[("PROFILE", "other")], "AKIDOTHER"),
        (&["--profile", "other"], &[], "AKIDOTHER"),
    ] {
        let made = planned(&operator, arguments, variables);
        assert!(made.authorization.contains(&format!("Credential={key}/")), "{}", made.authorization);
        assert!(made.authorization.contains("/eu-central-1/cloudformation/"), "{}", made.authorization);
    }
    let made = planned(&operator, &["--region", "eu-west-2"], &[]);
    assert!(made.authorization.contains("/eu-west-2/cloudformation/"), "{}", made.authorization);
    let mut command = operator.command(&["plan", "--profile", "other"], &[]);
    let _ = Finished::from(command.env_remove("AWS_REGION").output().unwrap()).expect(0);
    let calls = operator.calls();
    assert!(calls[0].authorization.contains("/eu-west-3/cloudformation/"), "{}", calls[0].authorization);
    let _ = operator.deploy(&["plan"], &[("AWS_REGION", "")]).expect(2).says("no AWS region is chosen");
}

#[test]
fn a_flag_wins_over_environment_file_stack_and_default() {
    let operator = Operator::new();
    let kind = |arguments: &[&str], variables: &[(&str, &str)]| {
        let made = planned(&operator, arguments, variables);
        let kinds = ["BlueInstanceType", "GreenInstanceType"].map(|name| made.parameter(name).map(str::to_owned));
        let [blue, green] = kinds;
        green.or(blue).unwrap()
    };
    assert_eq!(kind(&[], &[]), "t3.micro");
    let _ = operator.deploy(&["create-stack", "--yes"], &[("INSTANCETYPE", "t3.small")]).expect(0);
    drop(operator.calls());
    operator.content("2");
    let next = ("BUILD_NUMBER", "2");
    assert_eq!(kind(&[], &[next]), "t3.small", "the stack's");
    let _ = operator.sandbox.write("deploy.toml", "instance_type = \"t3.large\"\nbuild_number = 7\n");
    assert_eq!(kind(&[], &[]), "t3.large", "the file's");
    assert_eq!(kind(&[], &[("INSTANCETYPE", "t2.micro")]), "t2.micro", "the environment's");
    assert_eq!(kind(&["--instance-type", "t3.small"], &[("INSTANCETYPE", "t2.micro")]), "t3.small", "the flag's");
    let other = operator.sandbox.write("other.toml", "instance_type = \"t3.small\"\nbuild_number = 8\n");
    let made = planned(&operator, &["--settings-file", &other], &[]);
    assert_eq!((made.parameter("GreenInstanceType"), made.parameter("GreenVersionId")), (Some("t3.small"), Some("8")));
}

#[test]
fn invalid_settings_are_refused_before_any_request() {
    let operator = Operator::new();
    let _ = operator.sandbox.write("deploy.toml", "buckets = \"b\"\n");
    let _ = operator.deploy(&["plan"], &[]).expect(2).says("buckets").says("did you mean `bucket`?");
    let missing = ["plan", "--settings-file", "none.toml"];
    let _ = operator.deploy(&missing, &[]).expect(2).says("none.toml");
    let _ = operator.sandbox.write("deploy.toml", "");
    let _ = operator.deploy(&["plan"], &[("BUILD_NUMBER", "new")]).expect(2).says("new");
    let _ = operator.deploy(&["plan", "--stack", "a/b"], &[]).expect(2).says("is not a valid stack name");
    assert!(operator.calls().is_empty());
}

#[test]
fn other_parameters_of_the_template_can_be_given_and_stay() {
    let operator = Operator::new();
    let give = ["create-stack", "--yes", "--parameter", "ScaleDownThreshold=40", "--parameter", "KeepCapacity=2"];
    let _ = operator.deploy(&give, &[]).expect(0);
    operator.content("2");
    let _ = operator.update("2").expect(0).says("blue (build 1) keeps 2 machines");
    assert_eq!(operator.parameter("ScaleDownThreshold"), "40");
}

#[test]
fn a_parameter_that_the_template_lacks_is_refused() {
    let operator = Operator::new();
    for (strategy, lacks, knows) in [
        ("blue-green", "VolumeSize", "BlueVolumeSize, BuildAlarmPeriodSeconds"),
        ("weighted-dns", "KeepCapacity", "VolumeSize"),
        ("compatible", "IpAddressType", "VolumeSize"),
    ] {
        let parameter = format!("{lacks}=2");
        for verb in [&["plan"][..], &["create-stack", "--yes"]] {
            let arguments = ["--strategy", strategy, "--dns-record", "app.example.com", "--parameter", &parameter];
            let _ = operator
                .deploy(&[verb, &arguments].concat(), &[])
                .expect(2)
                .says(&format!("the template of the strategy {strategy} has no parameter {lacks}"))
                .says("hint: pass one of ")
                .says(knows);
        }
    }
    let _ = operator.sandbox.write("deploy.toml", "parameter = { HelthCheckPath = \"/x\" }\n");
    let _ = operator.deploy(&["plan"], &[]).expect(2).says("no parameter HelthCheckPath").says("HealthCheckPath");
    assert!(operator.calls().is_empty());
}

#[test]
fn a_parameter_that_deploy_sets_itself_is_refused() {
    let operator = Operator::new();
    for (strategy, parameter) in [("blue-green", "GreenMinSize"), ("compatible", "MinSize"), ("compatible", "AMIId")] {
        let parameter_and_value = format!("{parameter}=2");
        let arguments = ["plan", "--strategy", strategy, "--parameter", &parameter_and_value];
        let _ =
            operator.deploy(&arguments, &[]).expect(2).says(&format!("deploy itself sets the parameter {parameter}"));
    }
    assert!(operator.calls().is_empty());
}

#[test]
fn the_calls_of_the_old_script_work_as_they_are() {
    let operator = Operator::new();
    operator.world(|world| {
        world.security_groups.push(("sg-00cb6fd66209c6f64", "vpc-1"));
        let zones = [
            ("subnet-49633d04", "eu-central-1a"),
            ("subnet-4e92d933", "eu-central-1b"),
            ("subnet-ad001cc6", "eu-central-1c"),
        ];
        world.subnets.extend(zones.map(|(id, zone)| (id, "vpc-1", zone)));
    });
    let variables =
        [("SG_VALUE", "sg-00cb6fd66209c6f64"), ("SUBNETS", "subnet-49633d04,subnet-4e92d933,subnet-ad001cc6")];
    let _ = operator
        .deploy(&["-t", "create-stack", "--yes"], &variables)
        .expect(0)
        .says("every serving target runs build 1");
    let update = ["-t", "update-stack", "--yes", "--pause", "0s"];
    let variables = [variables[0], variables[1], ("BUILD_NUMBER", "3")];
    let _ = operator.deploy(&update, &variables).expect(0).says("every serving target runs build 3");
    assert_eq!(operator.parameter("SecurityGroup"), "sg-00cb6fd66209c6f64");
}

#[test]
fn the_wrong_verb_is_corrected_with_a_note() {
    let operator = Operator::serving();
    operator.content("2");
    let create = ["create-stack", "--yes", "--pause", "0s"];
    let _ = operator
        .deploy(&create, &[("BUILD_NUMBER", "2")])
        .expect(0)
        .says("note: stack glovo-app exists; updating it")
        .says("every serving target runs build 2");
    let right = operator.deploy(&create[..2], &[("BUILD_NUMBER", "2")]).expect(0).says("no changes");
    assert!(right.stdout.contains("note: stack glovo-app exists"));
    let right = operator.update("3").expect(0);
    assert!(!right.stdout.contains("note: stack"));
}

#[test]
fn the_old_shape_gets_the_parameters_that_the_old_script_passed() {
    let operator = Operator::new();
    let variables = [
        ("KP", "ann"),
        ("AMIID", "ami-3"),
        ("INSTANCETYPE", "t3.small"),
        ("BUILD_NUMBER", "5"),
        ("SG_VALUE", "sg-1"),
        ("MINSIZE", "2"),
        ("DESIREDCAPACITY", "3"),
        ("MAXSIZE", "4"),
        ("AWSCERTIFICATE", CERTIFICATE),
    ];
    operator.world(|world| world.root_device = "/dev/xvda");
    let made = planned(&operator, &["--strategy", "compatible"], &variables);
    for (parameter, value) in [
        ("KeyName", "ann"),
        ("AMIId", "ami-3"),
        ("RootDeviceName", "/dev/xvda"),
        ("InstanceTypeParameter", "t3.small"),
        ("VersionId", "5"),
        ("SecurityGroup", "sg-1"),
        ("Subnets", "subnet-a,subnet-b"),
        ("MinSize", "2"),
        ("DesiredCapacity", "3"),
        ("MaxSize", "4"),
        ("AWSCertificate", CERTIFICATE),
    ] {
        assert_eq!(made.parameter(parameter), Some(value), "{parameter}");
    }
    let user_data = BASE64_STANDARD.decode(made.parameter("UserData").unwrap()).unwrap();
    assert!(String::from_utf8(user_data).unwrap().contains("\n#!/bin/sh\necho content 1\nEND-"));
}
