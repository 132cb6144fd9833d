//! What a shell is told when somebody presses Tab, and what man(1) shows. It leaves out the shells' own parts.

use bastide_tests::{Lab, Program};

/// `bastide` as bash asks it, with the cursor behind the last of the words.
fn ask(lab: &Lab, words: &[&str]) -> Program {
    lab.program(bastide_tests::binary("bastide"))
        .env("BASTIDE_COMPLETE", "bash")
        .env("_CLAP_COMPLETE_INDEX", (words.len() - 1).to_string())
        .env("_CLAP_COMPLETE_COMP_TYPE", "9")
        .env("_CLAP_IFS", "\n")
        .arg("--")
        .args(words)
}

#[test]
fn commands_flags_and_names_are_completed() {
    let lab = Lab::new();
    let folder = lab.home().join(".config/bastide");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("config.toml"), "[hosts.web]\n[hosts.west]\n[hosts.db]\n[profiles.work]\n")
        .unwrap();
    let check = |words: &[&str], expected: &[&str]| {
        let text = ask(&lab, words).run().expect_code(0).text();
        let found: Vec<&str> = text.split('\n').map(str::trim_end).collect();
        for word in expected {
            assert!(found.contains(word), "{words:?}: no {word} in {found:?}");
        }
    };
    check(&["bastide", "tun"], &["tunnel"]);
    check(&["bastide", "ssh", "we"], &["web", "west"]);
    check(&["bastide", "ssh", "--profile", ""], &["work"]);
    check(&["bastide", "tunnel", "--resource"], &["--resource-port", "--resource-group"]);
    check(&["bastide", "ssh", "--host-key-check", "s"], &["strict"]);
}

#[test]
fn bash_completes_by_the_script() {
    let lab = Lab::new();
    let script = "source <(bastide completions bash)\n\
                  COMP_WORDS=(bastide logo); COMP_CWORD=1; COMP_TYPE=9\n\
                  _clap_complete_bastide bastide logo bastide\necho \"${COMPREPLY[*]}\"";
    let outcome = lab.program("bash").args(["-c", script]).run().expect_code(0);
    assert_eq!(outcome.text().trim(), "logout", "{outcome}");
    for shell in ["zsh", "fish", "powershell", "elvish"] {
        let outcome = lab.bastide(&format!("completions {shell}")).run().expect_code(0);
        assert!(outcome.text().contains("BASTIDE_COMPLETE"), "{outcome}");
    }
}

#[test]
fn there_is_a_page_for_each_command() {
    let lab = Lab::new();
    let page = lab.bastide("man ssh").run().expect_code(0).text();
    assert!(page.contains(".TH bastide-ssh 1"), "{page}");
    lab.bastide("man ssk").run().expect_code(2).expect_stderr("there is no command 'ssk'");
    lab.bastide("man --write pages").run().expect_code(0);
    for name in ["bastide.1", "bastide-tunnel.1", "bastide-ssh.1"] {
        assert!(lab.home().join("pages").join(name).is_file(), "{name}");
    }
    assert!(!lab.home().join("pages/bastide-hand-over.1").exists());
}
