//! The checks before the first change.

use crate::{
    operator::Operator,
    sandbox::Finished,
    tape::{Turn, changes},
    world::World,
};

const CERTIFICATE: &str = "arn:aws:acm:eu-central-1:123456789012:certificate/1";

/// Returns the output for a stack that cannot be made with these settings. Checks that all calls were reads.
fn refused(alter: impl FnOnce(&mut World), variables: &[(&str, &str)]) -> Finished {
    let operator = Operator::new();
    operator.world(alter);
    let refused = operator.deploy(&["create-stack", "--yes"], variables).expect(2);
    let calls = operator.calls();
    assert!(!calls.is_empty() && changes(&calls).is_empty(), "{calls:?}");
    refused.says("these settings cannot be deployed; nothing was changed")
}

fn accepted(alter: impl FnOnce(&mut World), variables: &[(&str, &str)]) -> Operator {
    let operator = Operator::new();
    operator.world(alter);
    let _ = operator.deploy(&["create-stack", "--yes"], variables).expect(0);
    operator
}

fn as_it_is(_: &mut World) {}

fn arm(world: &mut World) {
    let _ = world.images.insert("ami-2", ("arm64", "ubuntu-jammy-22.04"));
}

#[test]
fn subnets_must_be_there_in_one_vpc_and_in_two_zones() {
    let _ = refused(as_it_is, &[("SUBNETS", "")]).says("subnets: none are given (set SUBNETS=");
    let unknown = refused(as_it_is, &[("SUBNETS", "subnet-a,subnet-x")]);
    let _ = unknown.says("subnets: InvalidSubnetID.NotFound: 'subnet-x' does not exist");
    let _ = refused(as_it_is, &[("SUBNETS", "subnet-a")])
        .says("subnets: all are in eu-central-1a; a balancer needs two availability zones");
    let two_vpcs = |world: &mut World| world.subnets.push(("subnet-c", "vpc-2", "eu-central-1c"));
    let _ = refused(two_vpcs, &[("SUBNETS", "subnet-a,subnet-c")])
        .says("subnets: they are in 2 VPCs (vpc-1, vpc-2), but must be in one");
}

#[test]
fn security_groups_must_be_there_and_in_the_vpc_of_the_subnets() {
    let _ = refused(as_it_is, &[("SG_VALUE", "sg-1,sg-9")])
        .says("security groups: InvalidGroup.NotFound: 'sg-9' does not exist");
    let elsewhere = |world: &mut World| world.security_groups.push(("sg-3", "vpc-2"));
    let _ = refused(elsewhere, &[("SG_VALUE", "sg-1,sg-3")])
        .says("security group sg-3: it is in vpc-2, but the subnets are in vpc-1");
}

#[test]
fn the_image_must_be_there_and_fit_the_instance_type() {
    let _ = refused(as_it_is, &[("AMIID", "ami-1")]).says("AMI ami-1: InvalidAMIID.NotFound: 'ami-1' does not exist");
    let _ = refused(arm, &[("AMIID", "ami-2"), ("INSTANCETYPE", "t3.small")])
        .says("instance type t3.small is for x86_64, but AMI ami-2 is for arm64");
    let _ = accepted(arm, &[("AMIID", "ami-2"), ("INSTANCETYPE", "t4g.small")]);
    let _ = refused(as_it_is, &[("INSTANCETYPE", "t2.giant")]).says("instance type t2.giant: InvalidInstanceType");
}

#[test]
fn the_image_must_be_for_the_program_s_processor() {
    let operator = Operator::new();
    operator.world(arm);
    let create = operator.with_agent(&["create-stack", "--yes"]);
    let create: Vec<&str> = create.iter().map(String::as_str).collect();
    let variables = [("CLOUD_INIT_PATH", ""), ("AMIID", "ami-2"), ("INSTANCETYPE", "t4g.small")];
    let _ = operator
        .deploy(&create, &variables)
        .expect(2)
        .says("AMI ami-2 is for arm64, but the program is for x86_64 (pass --agent FILE)");
    assert!(changes(&operator.calls()).is_empty(), "nothing is uploaded either");
}

/// An operator with these images, who deploys built-in or own steps.
fn of_images(images: &[(&'static str, &'static str)]) -> Operator {
    let operator = Operator::new();
    operator.world(|world| images.iter().for_each(|(ami, name)| _ = world.images.insert(*ami, ("x86_64", *name))));
    operator
}

/// `create-stack` with the program and its steps from an image.
fn creates(operator: &Operator, ami: &str, more: &[&str]) -> Finished {
    let create = operator.with_agent(&["create-stack", "--yes"]);
    let create: Vec<&str> = create.iter().map(String::as_str).chain(more.iter().copied()).collect();
    operator.deploy(&create, &[("CLOUD_INIT_PATH", ""), ("AMIID", ami)])
}

#[test]
fn the_built_in_steps_work_on_images_of_both_families() {
    for name in ["al2023-ami-2023.6", "RHEL-9.4", "debian-12", "our-amzn-base"] {
        let created = creates(&of_images(&[("ami-2", name)]), "ami-2", &[]).expect(0);
        assert!(!created.stderr.contains("AMI ami-2") && !created.stdout.contains("AMI ami-2"), "{created:?}");
    }
    let refused = creates(&of_images(&[("ami-2", "SLES-15")]), "ami-2", &[]).expect(2);
    let _ = refused.says("AMI ami-2: SUSE Linux: variable `java_package` has no value for sles");
    let noted = creates(&of_images(&[("ami-2", "our-suse-base")]), "ami-2", &[]).expect(0);
    let _ = noted.says("note: AMI ami-2: if its name (our-suse-base) tells its system: variable `java_package`");
}

#[test]
fn an_image_too_old_for_the_package_manager_is_refused() {
    for name in ["amzn2-ami-kernel-5.10-hvm-2.0", "RHEL-8.9.0_HVM-20231101"] {
        let refused = creates(&of_images(&[("ami-2", name)]), "ami-2", &[]).expect(2);
        let told = format!("AMI ami-2: dnf of this release ({name}) is not supported, but the steps install packages");
        let _ = refused.says(&told);
    }
}

#[test]
fn own_steps_need_an_image_that_they_can_work_on() {
    let digest = format!("key_sha256 = \"{:064}\"\n", 7);
    let repository = "[[resource]]\nkind = \"apt_repository\"\nname = \"a\"\nuris = [\"https://a/\"]\n\
                      suites = [\"stable\"]\ncomponents = [\"main\"]\nkey = \"/key\"\n";
    for (condition, refuses) in [("", true), ("where = { \"host.family\" = \"debian\" }\n", false)] {
        let operator = of_images(&[("ami-2", "RHEL-9.4"), ("ami-3", "al2023-ami-2023.6"), ("ami-4", "our-amzn-base")]);
        let steps = operator.sandbox.manifest(&format!("{repository}{digest}{condition}"));
        let with = |ami| creates(&operator, ami, &["--steps", &steps]);
        if !refuses {
            let _ = with("ami-3").expect(0);
            continue;
        }
        let _ = with("ami-2")
            .expect(2)
            .says("AMI ami-2: Red Hat Enterprise Linux has no apt, but the steps install packages with apt");
        let _ = with("ami-3").expect(2).says("AMI ami-3: Amazon Linux has no apt");
        // The names of images are arbitrary, and the operator's own user-data need not use apt.
        let _ = with("ami-4").expect(0).says("note: AMI ami-4: its name (our-amzn-base) suggests that it has no apt");
        let own = operator.sandbox.at("user-data");
        let given = [("CLOUD_INIT_PATH", &*own), ("AMIID", "ami-3"), ("BUILD_NUMBER", "2")];
        let _ = operator.deploy(&["plan"], &given).expect(0);
    }
}

#[test]
fn the_account_s_quota_must_have_room_for_the_new_machines() {
    let _ = refused(|world| world.quota = Some((8, vec![2, 4])), &[]).says(
        "quota: 2 machines of t3.micro need 4 vCPUs; 6 of the 8 that this account may run are in use (quota L-1216C47A)",
    );
    let _ = accepted(|world| world.quota = Some((10, vec![2, 4])), &[]);
    // A missing permission to read does not prevent the deploy.
    let _ = accepted(as_it_is, &[]);
}

#[test]
fn the_bucket_must_be_there() {
    let operator = Operator::new();
    let create = [operator.with_agent(&["create-stack", "--yes"]), vec!["--bucket=other".into()]].concat();
    let create: Vec<&str> =
        create.iter().map(String::as_str).filter(|word| !["--bucket", "artifacts"].contains(word)).collect();
    let refused = operator.deploy(&create, &[("CLOUD_INIT_PATH", "")]).expect(2);
    let _ = refused.says("bucket other does not exist");
    assert!(changes(&operator.calls()).is_empty());
}

#[test]
fn the_key_pair_must_be_there() {
    let _ = refused(as_it_is, &[("KP", "bob")]).says("key pair bob: InvalidKeyPair.NotFound: 'bob' does not exist");
}

#[test]
fn the_certificate_must_be_of_the_region_and_the_name() {
    let given = [("AWSCERTIFICATE", CERTIFICATE), ("DNSRECORD", "app.example.com")];
    let pending = |world: &mut World| world.certificate.0 = "PENDING_VALIDATION";
    let _ = refused(pending, &given)
        .says(&format!("certificate {CERTIFICATE}: its status is PENDING_VALIDATION, not ISSUED"));
    let other = |world: &mut World| world.certificate.1 = vec!["www.example.com", "*.app.example.com"];
    let _ = refused(other, &given)
        .says("it is for www.example.com, *.app.example.com, www.example.com, not for app.example.com");
    let elsewhere = CERTIFICATE.replace("eu-central-1", "us-east-1");
    let _ = refused(as_it_is, &[("AWSCERTIFICATE", &elsewhere)])
        .says("it is in us-east-1, but the stack is in eu-central-1");
    let wildcard = |world: &mut World| world.certificate.1 = vec!["*.example.com"];
    let operator = accepted(wildcard, &given);
    assert_eq!(operator.parameter("AWSCertificate"), CERTIFICATE);
}

#[test]
fn the_name_must_have_a_hosted_zone_and_the_nearest_is_taken() {
    let _ = refused(as_it_is, &[("DNSRECORD", "app.example.org")])
        .says("DNS: Route 53 has no public zone for app.example.org");
    // Names that follow in the alphabet do not match.
    let other = |world: &mut World| world.zones = vec!["other.example.com.", "zebra.com."];
    let _ = refused(other, &[("DNSRECORD", "app.example.com")]).says("no public zone for app.example.com");
    let operator = accepted(as_it_is, &[("DNSRECORD", "a.b.example.com")]);
    assert_eq!(operator.parameter("HostedZoneId"), "Z1");
}

#[test]
fn everything_that_is_wrong_is_named_at_once() {
    let wrong = [
        ("SUBNETS", "subnet-a"),
        ("SG_VALUE", "sg-9"),
        ("AMIID", "ami-1"),
        ("KP", "bob"),
        ("AWSCERTIFICATE", CERTIFICATE),
        ("DNSRECORD", "app.example.org"),
    ];
    let mut told = refused(as_it_is, &wrong);
    for words in ["- subnets:", "- security groups:", "- AMI ami-1:", "- key pair bob:", "- certificate", "- DNS:"] {
        told = told.says(words);
    }
}

#[test]
fn a_missing_permission_is_named() {
    let operator = Operator::new();
    operator
        .tape
        .script("GetCallerIdentity", [Turn::Refusal(403, "InvalidClientTokenId", "The security token is invalid")]);
    operator.tape.script("DescribeImages", [Turn::Refusal(403, "UnauthorizedOperation", "You are not authorized")]);
    let _ = operator
        .deploy(&["create-stack", "--yes"], &[])
        .expect(2)
        .says("credentials: InvalidClientTokenId: The security token is invalid (check the credentials, and this machine's clock)")
        .says("allow ec2:DescribeImages in the caller's IAM policy");
    assert!(changes(&operator.calls()).is_empty());
}

#[test]
fn a_public_zone_is_found_behind_private_ones_of_its_name() {
    let operator = Operator::new();
    operator.world(|world| {
        world.zones = vec!["private example.com.", "private example.com.", "example.com.", "private zebra.com."];
    });
    let _ = operator.deploy(&["create-stack", "--yes"], &[("DNSRECORD", "app.example.com")]).expect(0);
    assert_eq!(operator.parameter("HostedZoneId"), "Z3");
    // Without a public one, the search ends with the zones of this name.
    let operator = Operator::new();
    operator.world(|world| world.zones = vec!["private example.com.", "private zebra.com."]);
    let _ = operator
        .deploy(&["create-stack", "--yes"], &[("DNSRECORD", "app.example.com")])
        .expect(2)
        .says("DNS: Route 53 has no public zone for app.example.com");
}

#[test]
fn what_is_only_for_now_is_no_fault_of_the_settings() {
    for operation in ["GetCallerIdentity", "DescribeSubnets", "DescribeImages", "GetServiceQuota"] {
        let operator = Operator::new();
        operator.world(|world| world.quota = Some((8, vec![2])));
        operator.tape.script(operation, (0..6).map(|_| Turn::Refusal(400, "Throttling", "Rate exceeded")));
        let told = operator.deploy(&["create-stack", "--yes"], &[]).expect(75).says("Throttling: Rate exceeded");
        assert!(!told.stderr.contains("these settings cannot be deployed"), "{operation}: {}", told.stderr);
        assert!(changes(&operator.calls()).is_empty());
    }
}
