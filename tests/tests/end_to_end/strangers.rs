//! Programs that know nothing of Bastion, with what `bastide ssh-config` has written: OpenSSH's own, rsync, git, Ansible,
//! and what editors do; and others over `bastide proxy` and `bastide exec`: paramiko, psql. It leaves out the blocks
//! (`ssh_config`).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use bastide_tests::{Lab, Postgres, Program, Service, Sshd, free_port, python};

use crate::site::Site;
use crate::ssh_config::Files;

/// A VM with a block in the user's configuration.
struct Desk {
    site: Site,
}

impl Desk {
    fn new() -> Self {
        let site = Site::new();
        let target = site.target();
        write(&site.lab, &target, &site.sshd);
        Self { site }
    }

    fn lab(&self) -> &Lab {
        &self.site.lab
    }

    fn config(&self) -> PathBuf {
        Files::of(self.lab()).config
    }

    fn plain(&self, program: &str) -> Program {
        self.site.plain(program, &self.config())
    }

    fn at_vm(&self, name: &str) -> String {
        format!("box:{}", self.lab().home().join(name).display())
    }
}

fn write(lab: &Lab, target: &str, sshd: &Sshd) {
    let line = "ssh-config --write -n bastion -g demo --auth-type ssh-key --target-resource-id";
    let program = lab.bastide(line).args([target, "--username", &sshd.user(), "--ssh-key"]).arg(sshd.key());
    program.run().expect_code(0);
}

#[test]
fn scp_sftp_rsync_and_git() {
    let desk = Desk::new();
    let (lab, home) = (desk.lab(), desk.lab().home());
    let sent: Vec<u8> = (0..1_100_001u32).map(|at| (at % 251) as u8).collect();
    let file = lab.file("sent", &sent);
    desk.plain("scp").arg("-q").arg(&file).arg(desk.at_vm("one")).run().expect_code(0);
    let batch = format!("get {0}/one {0}/two\n", home.display());
    desk.plain("sftp").args(["-q", "-b", "-", "box"]).input(batch).run().expect_code(0);
    let shell = format!("ssh -F {}", desk.config().display());
    let rsync = lab.program("rsync").args(["-a", "-e", &shell]);
    rsync.arg(desk.at_vm("two")).arg(home.join("three")).run().expect_code(0);
    assert!(std::fs::read(home.join("three")).unwrap() == sent);

    let git = |folder: &Path, words: &str| {
        let program = lab.program("git").folder(folder).env("GIT_SSH_COMMAND", &shell);
        let program = program.args(["-c", "user.name=A", "-c", "user.email=a@example.com"]);
        program.words(words).run().expect_code(0)
    };
    git(home, "init --quiet --bare --initial-branch main at-vm.git");
    git(home, &format!("clone --quiet {} clone", desk.at_vm("at-vm.git")));
    let clone = home.join("clone");
    std::fs::write(clone.join("file"), &sent).unwrap();
    git(&clone, "add file");
    git(&clone, "commit --quiet --message one");
    git(&clone, "push --quiet origin HEAD:main");
    assert_eq!(git(home, "--git-dir at-vm.git log --format=%s main").text(), "one\n");
    lab.wait_for_releases();
}

#[test]
fn a_master_is_shared_with_bastide_ssh() {
    let desk = Desk::new();
    let lab = desk.lab();
    // The user's own line, behind the one that includes ours.
    let path = lab.home().join("master-%C");
    let mine =
        format!("Host *\n  ControlMaster auto\n  ControlPersist 60\n  ControlPath {}\n", path.display());
    let config = desk.config();
    std::fs::write(&config, [std::fs::read_to_string(&config).unwrap(), mine].concat()).unwrap();
    for number in ["one", "two"] {
        let outcome = desk.plain("ssh").args(["box", "echo", number]).run().expect_code(0);
        assert_eq!(outcome.text(), format!("{number}\n"));
    }
    let ssh = desk.site.session().args(["--auth-type", "ssh-key", "--", "-F"]).arg(&config).arg("echo three");
    assert_eq!(ssh.run().expect_code(0).text(), "three\n");
    assert_eq!((lab.transcript().mints(), lab.transcript().releases()), (1, 0));
    desk.plain("ssh").args(["-O", "exit", "box"]).run().expect_code(0);
    lab.wait_for_releases();
}

/// VS Code's remote extension starts `ssh -T -D PORT HOST bash`, feeds a script to it, and talks to its server through
/// the forwarded port.
#[test]
fn what_an_editor_does() {
    let desk = Desk::new();
    let echo = Service::echo();
    let port = free_port();
    let ssh = desk.plain("ssh").args([
        "-v",
        "-T",
        "-D",
        &port.to_string(),
        "-o",
        "ConnectTimeout=15",
        "box",
        "bash",
    ]);
    let mut session = ssh.start();
    let (mut stdin, stdout) = session.pipes();
    let mut lines = BufReader::new(stdout).lines().map(|line| line.unwrap());
    stdin.write_all(b"uname -s\necho listening\n").unwrap();
    assert_eq!((lines.next().as_deref(), lines.next().as_deref()), (Some("Linux"), Some("listening")));
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    // RFC 1928: version 5 without authentication; CONNECT to a name.
    stream.write_all(&[5, 1, 0]).unwrap();
    stream.read_exact(&mut [0; 2]).unwrap();
    let [high, low] = echo.port().to_be_bytes();
    stream.write_all(&[&[5, 1, 0, 3, 9][..], b"localhost", &[high, low]].concat()).unwrap();
    let mut answer = [0; 10];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[..2], [5, 0]);
    stream.write_all(b"editor").unwrap();
    let mut back = [0; 6];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"editor");
    drop(stream);
    stdin.write_all(b"exit 4\n").unwrap();
    drop(stdin);
    session.finish().expect_code(4);
    desk.lab().wait_for_releases();
    assert_eq!(desk.lab().transcript().mints(), 1);
}

/// Two VMs, each with a server and a key of its own.
#[test]
fn ansible_with_two_hosts() {
    let servers = [Sshd::start(), Sshd::start()];
    let machines: String = ["alpha", "beta"]
        .iter()
        .zip(&servers)
        .enumerate()
        .map(|(index, (name, sshd))| {
            format!(
                "[[virtual_machines]]\nname = \"{name}\"\nprivate_ip = \"10.0.0.{}\"\n\
                 ports = {{ 22 = \"127.0.0.1:{}\" }}\n",
                index + 4,
                sshd.port()
            )
        })
        .collect();
    let lab = Lab::with(&machines);
    for (name, sshd) in ["alpha", "beta"].iter().zip(&servers) {
        write(&lab, &lab.vm(name), sshd);
    }
    let config = Files::of(&lab).config;
    let inventory = lab.file("inventory.ini", "[web]\nalpha\nbeta\n");
    let folder = lab.home().join("deployed");
    let playbook = format!(
        "- hosts: web\n  gather_facts: true\n  tasks:\n\
         \x20   - file: {{path: {0}, state: directory}}\n\
         \x20   - copy: {{content: '{{{{ inventory_hostname }}}} {{{{ ansible_system }}}}', dest: '{0}/{{{{ inventory_hostname }}}}'}}\n\
         \x20   - shell: 'cat {0}/{{{{ inventory_hostname }}}}'\n      register: shown\n\
         \x20   - fetch: {{src: '{0}/{{{{ inventory_hostname }}}}', dest: {1}/fetched/, flat: true}}\n\
         \x20   - assert: {{that: shown.stdout == inventory_hostname + ' Linux'}}\n",
        folder.display(),
        lab.home().display(),
    );
    let playbook = lab.file("playbook.yml", playbook);
    let ansible = || {
        lab.program(python("ansible-playbook"))
            .arg("-i")
            .arg(&inventory)
            .arg(&playbook)
            .env("ANSIBLE_SSH_EXTRA_ARGS", format!("-F {}", config.display()))
            .env("ANSIBLE_SSH_CONTROL_PATH", format!("{}/cp-%%C", lab.home().display()))
            .env("ANSIBLE_PYTHON_INTERPRETER", python("python3"))
            .env("ANSIBLE_LOCAL_TEMP", lab.home().join("ansible"))
            .env("ANSIBLE_REMOTE_TEMP", lab.home().join("remote"))
            .env("LC_ALL", "C.UTF-8")
            .run()
            .expect_code(0)
    };
    let outcome = ansible();
    for name in ["alpha", "beta"] {
        assert_eq!(std::fs::read_to_string(folder.join(name)).unwrap(), format!("{name} Linux"));
        assert_eq!(
            std::fs::read_to_string(lab.home().join("fetched").join(name)).unwrap(),
            format!("{name} Linux")
        );
        assert!(outcome.text().contains("failed=0"), "{outcome}");
    }
    // A second run finds nothing to change but what the shell does, over the masters that are still there.
    let text = ansible().text();
    assert_eq!(text.matches("changed=1 ").count(), 2, "{text}");
    assert_eq!(lab.transcript().mints(), 2);
    for name in ["alpha", "beta"] {
        let path = format!("ControlPath={}/cp-%C", lab.home().display());
        let ssh = lab.program("ssh").arg("-F").arg(&config).args(["-o", &path, "-O", "exit", name]);
        ssh.run().expect_code(0);
    }
    lab.wait_for_releases();
}

/// paramiko has an SSH of its own, and only wants a program that carries the bytes.
#[test]
fn paramiko_over_the_proxy() {
    let site = Site::new();
    let script = r#"
import paramiko, sys
command, user, key, home = sys.argv[1:]
client = paramiko.SSHClient()
client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
client.connect("box", username=user, key_filename=key, sock=paramiko.ProxyCommand(command),
               allow_agent=False, look_for_keys=False)
into, out, err = client.exec_command("cat; exit 7")
out.channel.sendall(b"x" * 300000)
out.channel.shutdown_write()
assert out.read() == b"x" * 300000
assert out.channel.recv_exit_status() == 7
sftp = client.open_sftp()
with sftp.open(home + "/by-paramiko", "wb") as file:
    file.set_pipelined(True)
    file.write(b"y" * 1000000)
assert sftp.stat(home + "/by-paramiko").st_size == 1000000
sftp.get(home + "/by-paramiko", home + "/back")
client.close()
print("done")
"#;
    let script = site.lab.file("client.py", script);
    let program =
        site.lab.program(python("python3")).arg(script).arg(site.proxy_command().replace("%p", "22"));
    let outcome =
        program.arg(site.sshd.user()).arg(site.sshd.key()).arg(site.lab.home()).run().expect_code(0);
    assert_eq!(outcome.text(), "done\n");
    assert!(std::fs::read(site.lab.home().join("back")).unwrap() == vec![b'y'; 1_000_000]);
    site.lab.wait_for_releases();
    assert_eq!(site.lab.transcript().mints(), 1);
}

#[test]
fn psql_through_exec() {
    let postgres = Postgres::start();
    let lab = Lab::with_box(&format!("5432 = \"127.0.0.1:{}\"", postgres.port()));
    let exec = |words: &[&str]| {
        let line = "exec -n bastion -g demo --resource-port 5432 --target-resource-id";
        let program = lab.bastide(line).arg(lab.vm("box")).arg("--").args(words);
        program.env("PGPASSWORD", Postgres::PASSWORD).env("LC_ALL", "C.UTF-8")
    };
    let psql = |words: &[&str]| {
        let url = format!("postgresql://{}@{{host}}:{{port}}/postgres?sslmode=disable", Postgres::USER);
        exec(&[&["psql", "-X", "-qAt", "-v", "ON_ERROR_STOP=1", &url], words].concat())
    };
    let outcome = psql(&["-c", "select 6 * 7"]).run().expect_code(0);
    assert_eq!(outcome.text(), "42\n");
    assert_eq!(outcome.stderr, "");
    // A script on standard input, much in and much out.
    let rows: String = (0..20_000).map(|row| format!("{row}\tname {row}\n")).collect();
    let script = format!(
        "create table goods (id int primary key, name text);\ncopy goods from stdin;\n{rows}\\.\n\
         select count(*), sum(id) from goods;\ncopy goods to stdout;\n"
    );
    let outcome = psql(&[]).input(script).run().expect_code(0);
    assert!(outcome.text() == format!("20000|199990000\n{rows}"), "{} bytes", outcome.stdout.len());
    // psql's own numbers come through: 3 for an error in a script, 1 with -c, 2 for a connection that fails.
    psql(&[]).input("select nonsense;\n").run().expect_code(3).expect_stderr("\"nonsense\" does not exist");
    psql(&[]).env("PGPASSWORD", "wrong").run().expect_code(2).expect_stderr("password authentication failed");
    // By variables, for a program that starts another.
    let line = format!(
        "psql -X -qAt -h \"$BASTIDE_HOST\" -p \"$BASTIDE_PORT\" -U {} postgres -c 'select count(*) from goods'",
        Postgres::USER
    );
    assert_eq!(exec(&["sh", "-c", &line]).run().expect_code(0).text(), "20000\n");
    let transcript = lab.transcript();
    assert_eq!(transcript.mints(), transcript.releases());
}
