//! A role of a profile, given by moto's STS. From then on, moto checks each signature and each permission.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::{operator::Operator, sandbox::Finished};

/// The permissions of an operator.
const POLICY: &str = include_str!("../../../cloudformation/operator-policy.json");
const ROLE: &str = "arn:aws:iam::123456789012:role/ops";
const TEMPLATE: &str = "{\"Resources\":{\"Topic\":{\"Type\":\"AWS::SNS::Topic\"}}}";

/// moto, which ends with its test.
struct Moto {
    process: Child,
    address: String,
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.process.kill().and_then(|()| self.process.wait());
    }
}

impl Moto {
    fn start() -> Self {
        let emulators = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/emulators");
        let python = Command::new(emulators.join("needs")).stderr(Stdio::inherit()).output().unwrap();
        assert!(python.status.success(), "tests/emulators/needs");
        let mut command = Command::new(String::from_utf8(python.stdout).unwrap().trim());
        let _ = command.arg(emulators.join("moto_server.py")).args(["-H", "127.0.0.1", "-p", "0"]);
        let mut process = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines().map(Result::unwrap);
        let address =
            lines.find_map(|line| line.split_once("Running on http://").map(|(_, rest)| rest.trim().to_owned()));
        // It writes a line for each request.
        let _ = std::thread::spawn(move || lines.for_each(drop));
        Self { process, address: address.expect("an address") }
    }

    /// Returns the answer to a call of a service in Paris.
    fn call(&self, service: &str, form: &[(&str, &str)]) -> String {
        let pair = |(name, value): &(&str, &str)| {
            format!("{name}={}", percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC))
        };
        let form: Vec<String> = form.iter().map(pair).collect();
        self.post("/", service, &form.join("&"))
    }

    fn post(&self, path: &str, service: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let scope = format!("Credential=a/20260101/eu-west-3/{service}/aws4_request");
        let kind = if path == "/" { "application/x-www-form-urlencoded" } else { "text/plain" };
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n\
             Content-Type: {kind}\r\n\
             Authorization: AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=0\r\n\r\n",
            self.address,
            body.len()
        );
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{body}: {answer}");
        answer
    }

    /// Makes a user with keys, who may assume a role and nothing else. Returns the keys.
    fn make_user_and_role(&self) -> [String; 2] {
        let user = [("UserName", "ann")];
        let _ = self.call("iam", &[&[("Action", "CreateUser")], &user[..]].concat());
        let keys = self.call("iam", &[&[("Action", "CreateAccessKey")], &user[..]].concat());
        let trust = serde_json::json!({ "Version": "2012-10-17", "Statement": [{
            "Effect": "Allow", "Action": "sts:AssumeRole",
            "Principal": { "AWS": "arn:aws:iam::123456789012:user/ann" },
        }] });
        let trust = trust.to_string();
        let _ = self.call(
            "iam",
            &[("Action", "CreateRole"), ("RoleName", "ops"), ("AssumeRolePolicyDocument", trust.as_str())],
        );
        let assume = serde_json::json!({ "Version": "2012-10-17", "Statement": [{
            "Effect": "Allow", "Action": "sts:AssumeRole", "Resource": ROLE,
        }] });
        let mut operator: serde_json::Value = serde_json::from_str(POLICY).unwrap();
        for statement in operator["Statement"].as_array_mut().unwrap() {
            // moto checks actions on `*` only.
            statement["Resource"] = "*".into();
        }
        let (assume, operator) = (assume.to_string(), operator.to_string());
        for (action, name, value, document) in
            [("PutUserPolicy", "UserName", "ann", &assume), ("PutRolePolicy", "RoleName", "ops", &operator)]
        {
            let policy =
                [("Action", action), (name, value), ("PolicyName", "p"), ("PolicyDocument", document.as_str())];
            let _ = self.call("iam", &policy);
        }
        ["AccessKeyId", "SecretAccessKey"].map(|tag| texts(&keys, tag).concat())
    }
}

/// Returns the texts between these tags of an answer.
fn texts<'t>(answer: &'t str, tag: &str) -> Vec<&'t str> {
    let (begin, end) = (format!("<{tag}>"), format!("</{tag}>"));
    answer.split(&begin).skip(1).filter_map(|rest| rest.split(&end).next()).collect()
}

/// Runs `deploy` with the profiles alone: no keys and no region in the environment.
fn run(operator: &Operator, moto: &Moto, arguments: &[&str], variables: &[(&str, &str)]) -> Finished {
    let mut command = operator.command(arguments, variables);
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"] {
        let _ = command.env_remove(name);
    }
    let _ = command.env("AWS_ENDPOINT_URL", format!("http://{}", moto.address));
    let finished = Finished::from(command.output().unwrap());
    super::without_secrets(&finished);
    finished
}

#[test]
fn the_role_of_a_profile_is_assumed_with_moto_s_sts() {
    let (moto, operator) = (Moto::start(), Operator::new());
    let [id, secret] = moto.make_user_and_role();
    let profile = format!("[profile ops]\nrole_arn = {ROLE}\nsource_profile = base\nregion = eu-west-3\n");
    let _ = operator.sandbox.write(".aws/config", profile);
    let keys = |secret: &str| format!("[base]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n");
    let _ = operator.sandbox.write(".aws/credentials", keys(&secret));
    let stack = [("Action", "CreateStack"), ("StackName", "hello"), ("TemplateBody", TEMPLATE)];
    let _ = moto.call("cloudformation", &stack);
    let subnets = moto.call("ec2", &[("Action", "DescribeSubnets"), ("Version", "2016-11-15")]);
    let subnets = texts(&subnets, "subnetId")[..2].join(",");
    // From now on, moto refuses what is not signed, or not allowed.
    let _ = moto.post("/moto-api/reset-auth", "iam", "0");

    // The stack is only in the region of the profile.
    let history = ["history", "--stack", "hello", "--profile"];
    let _ = run(&operator, &moto, &[&history[..], &["ops"]].concat(), &[]).expect(0).says("CREATE_COMPLETE");
    // All calls of a plan are allowed to the role, by the operator's policy.
    let plan = ["plan", "--profile", "ops", "--strategy", "compatible", "--parameter", "VolumeSize=8"];
    let _ = run(&operator, &moto, &plan, &[("SUBNETS", &subnets), ("AMIID", "ami-1e749f67")])
        .expect(0)
        .says("  + Group (AWS::AutoScaling::AutoScalingGroup)");
    // The source of the role may assume it, and nothing else.
    let _ = run(&operator, &moto, &[&history[..], &["base", "--region", "eu-west-3"]].concat(), &[])
        .expect(1)
        .says("arn:aws:iam::123456789012:user/ann is not authorized to perform: cloudformation:DescribeStacks");
    let _ = operator.sandbox.write(".aws/credentials", keys("wrong"));
    let _ = run(&operator, &moto, &[&history[..], &["ops"]].concat(), &[])
        .expect(1)
        .says(&format!("STS does not give the role {ROLE} (AWS profile ops)"))
        .says("SignatureDoesNotMatch");
}
