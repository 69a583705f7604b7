//! The names of units that systemd derives from paths.

/// Returns the name of a path's unit without its ending; systemd.unit(5), systemd-escape(1).
pub fn escape(path: &str) -> String {
    let path = path.trim_matches('/');
    if path.is_empty() {
        return "-".into();
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b":_.".contains(&byte);
    let bytes = path.bytes().enumerate().map(|(index, byte)| match byte {
        b'/' => "-".to_owned(),
        b'.' if index == 0 => r"\x2e".to_owned(),
        byte if is_plain(byte) => char::from(byte).to_string(),
        byte => format!(r"\x{byte:02x}"),
    });
    bytes.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_escaped_as_systemd_does() {
        for (path, name) in [
            ("/", "-"),
            ("/srv", "srv"),
            ("/srv/data", "srv-data"),
            ("/srv/my-data", r"srv-my\x2ddata"),
            ("/.hidden/.x", r"\x2ehidden-.x"),
            ("/a:b_c.d", "a:b_c.d"),
            ("/é", r"\xc3\xa9"),
            ("/dev/disk/by-id/nvme-A_B", r"dev-disk-by\x2did-nvme\x2dA_B"),
        ] {
            assert_eq!(escape(path), name);
        }
    }
}
