//! What `relais check` says of certificates, one mistake a case.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// Removed when dropped.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("relais-check-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Directory(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Certificate and key, valid from a year before until so many days from now.
fn signed(by: &CertifiedIssuer<'static, KeyPair>, names: &[&str], days: i64) -> (String, String) {
    let mut params =
        CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).unwrap();
    let now = std::time::SystemTime::now();
    let day = std::time::Duration::from_secs(86_400);
    let half = day / 2; // so that a slow test sees the same number of days
    params.not_before = (now - 365 * day).into();
    params.not_after = match u32::try_from(days) {
        Ok(days) => (now + days * day + half).into(),
        Err(_) => (now - day).into(),
    };
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, by).unwrap().pem(), key.serialize_pem())
}

/// What is printed, and whether the verdict is good.
fn check(plan: &Path, more: &[&str]) -> (String, bool) {
    let mut relais = Command::new(env!("CARGO_BIN_EXE_relais"));
    let out = relais.arg("check").arg(plan).args(more).output().unwrap();
    (String::from_utf8(out.stdout).unwrap() + &String::from_utf8(out.stderr).unwrap(), out.status.success())
}

fn plan(directory: &Directory, tls: &str) -> PathBuf {
    let text = format!(
        "platform \"p\"\nnode n1 {{ link \"127.0.0.1\"; }}\nfrontend web {{\n bind \"127.0.0.1:8443\" {{ tls {{ {tls}; }} }}\n \
         on n1\n default-backend app\n}}\nbackend app {{ server s1 \"127.0.0.1:8081\"; }}\n"
    );
    directory.write("plan.kdl", &text)
}

fn openssl(directory: &Directory, arguments: &str) {
    let done = Command::new("openssl").current_dir(&directory.0).args(arguments.split(' ')).output().unwrap();
    assert!(done.status.success(), "{arguments}: {}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn what_is_wrong_with_a_certificate_is_said_before_it_is_used() {
    let directory = Directory::new("mistakes");
    let (root, other) = (authority("root"), authority("other"));
    let (good, key) = signed(&root, &["a.test"], 90);
    let (soon, soon_key) = signed(&root, &["a.test"], 12);
    let (late, late_key) = signed(&root, &["a.test"], -1);
    let (nameless, nameless_key) = signed(&root, &[], 90);
    openssl(
        &directory,
        "req -x509 -newkey rsa:1024 -nodes -keyout k1024 -out c1024 -subj /CN=a -addext subjectAltName=DNS:a.test",
    );
    let short = ["c1024", "k1024"].map(|f| std::fs::read_to_string(directory.0.join(f)).unwrap()).concat();
    openssl(&directory, "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -subj /CN=ca");
    openssl(
        &directory,
        "req -newkey rsa:2048 -nodes -keyout sha1.key -out sha1.csr -subj /CN=a -addext subjectAltName=DNS:a.test",
    );
    openssl(
        &directory,
        "x509 -req -sha1 -in sha1.csr -CA ca.crt -CAkey ca.key -CAcreateserial -copy_extensions copy -days 90 -out sha1.crt",
    );
    let weak =
        ["sha1.crt", "sha1.key"].map(|f| std::fs::read_to_string(directory.0.join(f)).unwrap()).concat();
    let cases = [
        (format!("{good}{key}"), true, "good\n"),
        (format!("{good}{}{key}", root.pem()), true, "good\n"),
        (String::new(), false, "c.pem has no certificate"),
        (key.clone(), false, "c.pem has no certificate"),
        (good.clone(), false, "c.pem has no private key"),
        (format!("{good}{soon_key}"), false, "the private key is not that of the first certificate"),
        (format!("{good}{}{key}", other.pem()), true, "c.pem did not sign certificate 1"),
        (format!("{late}{late_key}"), true, "c.pem expired on 20"),
        (format!("{soon}{soon_key}"), true, ", in 12 days"),
        (format!("{nameless}{nameless_key}"), true, "c.pem names no host"),
        (short, false, "c.pem: an RSA key of 1024 bits is too short"),
        (weak, true, "c.pem is signed with SHA-1 or MD5"),
    ];
    let file = directory.0.join("c.pem");
    let plan = plan(&directory, &format!("certificate \"{}\"", file.display()));
    for (text, ok, said) in cases {
        std::fs::write(&file, text).unwrap();
        for more in [&[][..], &["--node", "n1"]] {
            let (out, good) = check(&plan, more);
            assert!(out.contains(said) && good == ok, "{said}: {out}");
            assert!(said == "good\n" || out.contains("certificate \""), "the line is shown: {out}");
        }
    }
}

#[test]
fn a_file_that_is_elsewhere_is_missed_only_where_it_has_to_be() {
    let directory = Directory::new("missing");
    let plan = plan(&directory, &format!("certificate \"{}/no.pem\"", directory.0.display()));
    let (out, good) = check(&plan, &[]);
    assert!(good && out.contains("no.pem is not on this machine"), "{out}");
    let (out, good) = check(&plan, &["--node", "n1"]);
    assert!(
        !good && out.contains("no.pem cannot be read: No such file") && !out.contains("not on this"),
        "{out}"
    );
    let (out, good) = check(&plan, &["--node", "n2"]);
    assert!(!good && out.contains("has no node `n2`"), "{out}");
}

#[test]
fn a_name_in_two_files_is_said_with_the_one_that_is_used() {
    let directory = Directory::new("twins");
    let root = authority("root");
    let write = |name: &str, names: &[&str]| {
        let (certificate, key) = signed(&root, names, 90);
        directory.write(name, &(certificate + &key))
    };
    write("1.pem", &["a.test", "b.test"]);
    write("2.pem", &["c.test", "b.test"]);
    write("3.pem", &["d.test"]);
    directory.write("4.pem", "half a file");
    let shown = directory.0.display();
    let (out, good) = check(&plan(&directory, &format!("certificates \"{shown}\"")), &[]);
    assert!(good, "the others of a directory are served: {out}");
    let said = format!("{shown}/2.pem is for b.test like {shown}/1.pem, which comes first");
    assert!(
        out.contains(&said) && out.contains("4.pem has no certificate") && out.contains("2 warnings"),
        "{out}"
    );
}

#[test]
fn programs_that_cannot_be_run_are_named() {
    use std::os::unix::fs::PermissionsExt;
    let directory = Directory::new("programs");
    let program = directory.write("look", "#!/bin/sh\n");
    let mode = |mode| std::fs::set_permissions(&program, std::fs::Permissions::from_mode(mode)).unwrap();
    let shown = program.display();
    let text = |command: &str| {
        format!(
            "platform p {{\n}}\nnode n1 {{ link \"127.0.0.1\"; }}\nnode n2 {{ link \"127.0.0.2\"; }}\n\
             frontend web {{ on n1; bind \"127.0.0.1:8080\"; default-backend app; }}\n\
             backend app {{ check exec command=\"{command}\" every=\"1s\"; server s1 \"127.0.0.1:80\"; }}\n"
        )
    };
    let plan = directory.write("plan.kdl", &text(&format!("{shown} --fast")));
    for (bits, said) in [
        (0o755, None),
        (0o644, Some("may be run by nobody")),
        (0o750, Some("may not be run by users without privileges, as Relais runs it")),
    ] {
        mode(bits);
        for (more, good) in [(&[][..], true), (&["--node", "n1"], said.is_none()), (&["--node", "n2"], true)]
        {
            let (out, ok) = check(&plan, more);
            let expected = said.filter(|_| !more.ends_with(&["n2"]));
            let named = expected.map(|said| format!("the program {shown} {said}"));
            assert!(ok == good && named.is_none_or(|named| out.contains(&named)), "{bits:o} {more:?}: {out}");
            assert_eq!(out.contains("the program "), expected.is_some(), "{bits:o} {more:?}: {out}");
        }
    }
    std::fs::remove_file(&program).unwrap();
    let (out, good) = check(&plan, &["--node", "n1"]);
    assert!(!good && out.contains(&format!("the program {shown} is not on this machine")), "{out}");
    directory.write("plan.kdl", &text(&directory.0.display().to_string()));
    let (out, good) = check(&plan, &[]);
    assert!(good && out.contains("is no file"), "{out}");
}
