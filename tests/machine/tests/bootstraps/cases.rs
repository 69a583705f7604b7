//! The cases that run, by machine. Those of one machine do not exclude each other.

/// A manifest of `examples/world`.
pub struct Case {
    pub id: &'static str,
    /// Makes what the image of the case has.
    pub image: &'static str,
    /// How the effects of its resources are removed, if not as usual for their kind.
    pub by_hand: &'static [(&'static str, &'static str)],
}

const fn case(id: &'static str) -> Case {
    Case { id, image: "", by_hand: &[] }
}

pub const APPLICATIONS: [Case; 7] = [
    case("A01"),
    case("G06"),
    Case {
        id: "G10",
        image: "",
        by_hand: &[
            ("command slow-log", "rm /var/log/mysql/slow.log"),
            ("command anonymous-users", "touch /var/lib/mysql/anonymous"),
            ("command database", "rm /var/lib/mysql/databases"),
            ("command database-user", "rm /var/lib/mysql/users"),
        ],
    },
    // Debian's apt provides the one, and no origin here has the other.
    Case { id: "G12", image: "", by_hand: &[("package apt-transport-https, ca-certificates", "")] },
    Case { id: "A13", image: "", by_hand: &[("command gitlab-reconfigure", "rm /var/opt/gitlab/bootstrapped")] },
    Case { id: "I11", image: "", by_hand: &[("command chef-client", "rm /etc/chef/client.pem")] },
    case("I07"),
];

pub const BUILDS: [Case; 8] = [
    case("G02"),
    case("G04"),
    Case {
        id: "D08",
        image: "useradd --create-home ubuntu",
        by_hand: &[
            ("command dev-certs", "rm -r /root/.dotnet"),
            (
                "package dotnet-sdk-6.0, apt-transport-https, ca-certificates and 2 more",
                "dpkg --purge dotnet-sdk-6.0 > /dev/null",
            ),
        ],
    },
    Case { id: "T14", image: "", by_hand: &[("command registry-login", "rm /root/.docker/config.json")] },
    case("A05"),
    case("T12"),
    case("B03"),
    Case { id: "S04", image: "", by_hand: &[("command pm2", "rm /home/ubuntu/.npm-global/pm2")] },
];

pub const SYSTEM: [Case; 8] = [
    Case { id: "B01", image: "useradd --create-home ubuntu", by_hand: &[] },
    case("D04"),
    Case {
        id: "G08",
        image: "apt-get -qq update; apt-get -qq -y install chrony systemd-timesyncd > /dev/null
            systemctl --quiet enable --now chrony systemd-timesyncd",
        by_hand: &[
            ("host Europe/Madrid", "ln -sfn /usr/share/zoneinfo/Etc/UTC /etc/localtime"),
            ("service chrony.service", "systemctl --quiet enable --now chrony"),
            ("service systemd-timesyncd.service", "systemctl --quiet enable --now systemd-timesyncd"),
        ],
    },
    Case {
        id: "T04",
        image: "useradd --create-home ec2-user; apt-get -qq update; apt-get -qq -y install amazon-ssm-agent > /dev/null",
        by_hand: &[],
    },
    Case {
        id: "I13",
        image: "apt-get -qq -y install sshd-stand-in > /dev/null",
        // A home that stays belongs to a number that the new user may not get.
        by_hand: &[("user debian", "userdel --force --remove debian 2> /dev/null")],
    },
    Case {
        id: "I05",
        image: "printf '#!/bin/sh\\ngrep -q ALL $2\\n' > /usr/sbin/visudo; chmod 755 /usr/sbin/visudo; mkdir -p /etc/sudoers.d",
        by_hand: &[
            ("user root", "gpasswd --delete root admingroup > /dev/null"),
            ("user sys", "gpasswd --delete sys admingroup > /dev/null"),
            ("user barfoo", "userdel --force --remove barfoo 2> /dev/null"),
            ("user fizzbuzz", "userdel --force --remove fizzbuzz 2> /dev/null"),
            ("user nosshlogins", "userdel --force --remove nosshlogins 2> /dev/null"),
        ],
    },
    Case { id: "I15", image: "mkdir /etc/yum.repos.d", by_hand: &[] },
    // The last one of its machine, which trusts no other authority then.
    Case {
        id: "I01",
        image: "",
        // No origin here has the package.
        by_hand: &[("package ca-certificates", ""), ("command ca-certificates", "rm /etc/ssl/certs/company-2.pem")],
    },
];
