//! Names of the templates' parameters and outputs. They are spelled here and in `cloudformation/` only; a test compares.

/// An enumeration of names.
macro_rules! names {
    ($(#[$about:meta])* $type:ident { $($(#[$doc:meta])* $variant:ident = $name:literal,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $type {
            $($(#[$doc])* $variant,)*
        }

        impl $type {
            /// All of them.
            #[allow(dead_code, reason = "a test compares all of them with the templates")]
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Returns the name, without the prefix of a slot.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                self.name()
            }
        }
    };
}

names! {
    /// A parameter that a stack has once.
    Parameter {
        /// VPC of the subnets.
        Vpc = "VpcId",
        /// Subnets of balancer and machines.
        Subnets = "Subnets",
        /// Further security groups of the balancer.
        SecurityGroups = "SecurityGroup",
        /// `internet-facing` or `internal`.
        Scheme = "Scheme",
        /// `ipv4` or `dualstack`.
        IpAddressType = "IpAddressType",
        /// ARN of the certificate of port 443.
        Certificate = "AWSCertificate",
        /// Name that points to the balancer.
        DnsRecord = "DNSRecord",
        /// Route 53 zone of this name.
        HostedZone = "HostedZoneId",
        /// Bucket that the machines read.
        ArtifactBucket = "ArtifactBucket",
        /// Prefix in this bucket that the machines may read.
        ArtifactPrefix = "ArtifactPrefix",
        /// Number of machines that the slot without traffic keeps.
        KeepCapacity = "KeepCapacity",
        /// Most answers with a status of 5xx in a period; empty for no alarm.
        MaxErrors = "MaxErrors",
        /// Seconds that a tenth of the answers may take; empty for no alarm.
        MaxResponseTime = "MaxResponseTime",
        /// Alarms that undo an instance refresh, with commas.
        Alarms = "Alarms",
        /// How long CloudFormation waits for the signals of machines, such as `PT20M`.
        SignalTimeout = "SignalTimeout",
        /// Seconds that Auto Scaling waits for the hook of a machine.
        SetupTimeout = "SetupTimeoutSeconds",
        /// Machines that wait in a warm pool besides the group's.
        WarmPoolSize = "WarmPoolSize",
        /// Key of the header that leads a request to a slot.
        ProbeKey = "ProbeKey",
    }
}

names! {
    /// A parameter that each slot has.
    SlotParameter {
        /// Number of the build.
        Build = "VersionId",
        /// Image of the machines.
        Ami = "AMIId",
        /// Name of the image's root device.
        RootDevice = "RootDeviceName",
        /// Type of the machines.
        InstanceType = "InstanceType",
        /// `standard` or empty: how machines of a burstable type use credits.
        CpuCredits = "CpuCredits",
        /// Key pair of the machines.
        KeyPair = "KeyName",
        /// ARNs of the secrets that the machines may read.
        SecretArns = "SecretArns",
        /// ARNs of the account's own keys that encrypt these secrets.
        SecretKeyArns = "SecretKeyArns",
        /// ARNs of the paths of parameters and of the objects with the machines' variables.
        VariableArns = "VariableArns",
        /// ARNs of the account's own keys that encrypt these parameters and objects.
        VariableKeyArns = "VariableKeyArns",
        /// Fewest machines now. While the traffic moves it is the number that serves.
        MinSize = "MinSize",
        /// Fewest machines as declared, for when the traffic has moved.
        DeclaredMinSize = "DeclaredMinSize",
        /// Machines that the group begins with.
        DesiredCapacity = "DesiredCapacity",
        /// Most machines.
        MaxSize = "MaxSize",
        /// Share of the traffic, in proportion to the other slot's.
        Weight = "Weight",
        /// User-data: a parameter where there is one group, else a placeholder in the template's text.
        UserData = "UserData",
    }
}

names! {
    /// An output that a stack has once.
    Output {
        /// ARN of the listener that forwards the traffic.
        Listener = "Listener",
        /// URL of the application.
        Url = "Url",
        /// DNS name of the balancer.
        BalancerDns = "BalancerDns",
    }
}

names! {
    /// An output that each slot has.
    SlotOutput {
        /// ARN of the target group.
        Targets = "Targets",
        /// Name of the alarm of the answers with a status of 5xx.
        ErrorAlarm = "ErrorAlarm",
        /// Name of the alarm of the slow answers.
        ResponseTimeAlarm = "ResponseTimeAlarm",
        /// Name of the Auto Scaling group; its resource in the template has the same name.
        Group = "Group",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::deploy::{
        event::GROUP_TYPE,
        layout::Layout,
        shape::STRATEGIES,
        template::{parameters, section},
    };

    /// Names as the code has them, each with its names in the template of one layout.
    type Names = BTreeMap<&'static str, Vec<String>>;

    fn parameter_names(layout: Layout) -> Names {
        let of_slot = |parameter: &SlotParameter| {
            let names = layout.slots().iter().map(|slot| layout.parameter(*slot, *parameter));
            (parameter.name(), names.collect())
        };
        let of_stack = Parameter::ALL.iter().map(|parameter| (parameter.name(), vec![parameter.name().to_owned()]));
        of_stack.chain(SlotParameter::ALL.iter().map(of_slot)).collect()
    }

    fn output_names(layout: Layout) -> Names {
        let of_slot = |output: &SlotOutput| {
            let names = layout.slots().iter().map(|slot| layout.output(*slot, *output));
            (output.name(), names.collect())
        };
        let of_stack = Output::ALL.iter().map(|output| (output.name(), vec![output.name().to_owned()]));
        of_stack.chain(SlotOutput::ALL.iter().map(of_slot)).collect()
    }

    /// Fails unless each name of the code is in a template, and in it for all slots or for none.
    fn check(title: &str, names: impl Fn(Layout) -> Names) {
        let mut missing: BTreeSet<&str> = names(Layout::OneSlot).into_keys().collect();
        for shape in STRATEGIES.iter().map(|strategy| strategy.shape()) {
            let there: BTreeSet<&str> = section(shape.template(), title).collect();
            for (name, spelled) in names(shape.layout()) {
                let count = spelled.iter().filter(|name| there.contains(name.as_str())).count();
                assert!([0, spelled.len()].contains(&count), "{name} of one slot is missing in {}", shape.name());
                if count > 0 {
                    _ = missing.remove(name);
                }
            }
        }
        assert!(missing.is_empty(), "no template has {missing:?}");
    }

    #[test]
    fn every_parameter_of_the_code_is_in_a_template() {
        check("Parameters:", parameter_names);
    }

    #[test]
    fn every_output_of_the_code_is_in_a_template() {
        check("Outputs:", output_names);
    }

    #[test]
    fn every_parameter_without_a_default_is_in_the_code() {
        for shape in STRATEGIES.iter().map(|strategy| strategy.shape()) {
            let known: Vec<String> = parameter_names(shape.layout()).into_values().flatten().collect();
            for name in parameters(shape.template()) {
                let body = shape.template().split(&format!("\n  {name}:\n")).nth(1).unwrap();
                let mut lines = body.lines().take_while(|line| line.starts_with("    "));
                let has_default = lines.any(|line| line.starts_with("    Default:"));
                assert!(has_default || known.iter().any(|known| known == name), "{name} of {}", shape.name());
            }
        }
    }

    #[test]
    fn machines_signal_for_a_group_that_the_template_has() {
        for shape in STRATEGIES.iter().map(|strategy| strategy.shape()) {
            for slot in shape.layout().slots() {
                let group = shape.layout().output(*slot, SlotOutput::Group);
                assert!(shape.template().contains(&format!("\n  {group}:\n    Type: {GROUP_TYPE}\n")), "{group}");
            }
        }
    }
}
