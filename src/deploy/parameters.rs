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
            #[cfg(test)]
            const ALL: &[Self] = &[$(Self::$variant),*];

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
        /// Key pair of the machines.
        KeyPair = "KeyName",
        /// Fewest machines.
        MinSize = "MinSize",
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
    }
}

names! {
    /// An output that each slot has.
    SlotOutput {
        /// ARN of the target group.
        Targets = "Targets",
        /// Name of the Auto Scaling group; its resource in the template has the same name.
        Group = "Group",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::deploy::{event::GROUP_TYPE, shape::STRATEGIES};

    /// Parameters that only the operator sets, with `--parameter`.
    const TUNING: [&str; 12] = [
        "AlarmPeriodSeconds",
        "EvaluationPeriods",
        "HealthCheckGracePeriod",
        "HealthCheckPath",
        "InstanceSecurityGroups",
        "ScaleDownThreshold",
        "ScaleUpThreshold",
        "ScalingMode",
        "SignalTimeout",
        "TargetUtilization",
        "TlsPolicy",
        "VolumeSize",
    ];
    /// Outputs for people.
    const FOR_PEOPLE: [&str; 4] = ["BalancerDns", "BalancerName", "KeepCapacity", "Url"];

    /// Parameters and outputs that a strategy's template does without.
    fn absent(strategy: &str) -> &'static [&'static str] {
        match strategy {
            "blue-green" => &["UserData"],
            "weighted-dns" => &["UserData", "KeepCapacity"],
            "compatible" => &["IpAddressType", "KeepCapacity", "Weight", "Listener", "Targets"],
            _ => &[],
        }
    }

    /// Names in a section of a template.
    fn section(template: &str, title: &str) -> BTreeSet<String> {
        let lines = template.lines().skip_while(|line| *line != title).skip(1);
        let lines = lines.take_while(|line| line.is_empty() || line.starts_with(' '));
        let name = |line: &str| Some(line.strip_prefix("  ")?.strip_suffix(':')?.to_owned());
        lines.filter_map(name).filter(|name| !name.starts_with(' ')).collect()
    }

    #[test]
    fn every_parameter_is_in_the_template_and_in_the_code() {
        for shape in STRATEGIES.iter().map(|strategy| strategy.shape()) {
            let lacks = |name: &str| absent(shape.name()).contains(&name);
            let mut known = BTreeSet::new();
            for parameter in Parameter::ALL.iter().filter(|parameter| !lacks(parameter.name())) {
                _ = known.insert(parameter.name().to_owned());
            }
            for slot in shape.layout().slots() {
                for parameter in SlotParameter::ALL.iter().filter(|parameter| !lacks(parameter.name())) {
                    _ = known.insert(shape.layout().parameter(*slot, *parameter));
                }
            }
            let mut there = section(shape.template(), "Parameters:");
            let is_tuning = |name: &str| TUNING.iter().any(|tuning| name.ends_with(tuning));
            there.retain(|name| !is_tuning(name));
            assert_eq!(known, there, "{}", shape.name());
        }
    }

    #[test]
    fn every_output_is_in_the_template_and_in_the_code() {
        for shape in STRATEGIES.iter().map(|strategy| strategy.shape()) {
            let lacks = |name: &str| absent(shape.name()).contains(&name);
            let of_stack = Output::ALL.iter().map(|output| output.name()).filter(|name| !lacks(name));
            let mut known: BTreeSet<String> = of_stack.map(str::to_owned).collect();
            for slot in shape.layout().slots() {
                let of_slot = SlotOutput::ALL.iter().filter(|output| !lacks(output.name()));
                known.extend(of_slot.map(|output| shape.layout().output(*slot, *output)));
            }
            let mut there = section(shape.template(), "Outputs:");
            there.retain(|name| !FOR_PEOPLE.contains(&name.as_str()));
            assert_eq!(known, there, "{}", shape.name());
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
