//! The built-in SSH server as strangers see it: OpenSSH's `ssh`, `scp` and `sftp`, and `rsync`.
//!
//! Each test has a machine of its own: a temporary folder, a loopback listener, one server. The client's
//! own configuration, agent and keys take no part. A missing program fails the test.

#![cfg(unix)]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bastide_emulator::ssh::{SshOptions, SshServer, generate_client_key};
use rand::Rng as _;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread")]
async fn exec_passes_status_and_keeps_the_streams_apart() {
    let machine = Machine::start().await;
    let output = machine.run("echo out; echo err >&2; exit 7").await;
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "out\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "err\n");

    // OpenSSH's client exits with 255 when the command was ended by a signal.
    assert_eq!(machine.run("kill -TERM $$").await.status.code(), Some(255));
    assert_eq!(machine.run("no-such-program").await.status.code(), Some(127));

    let output = machine.run("pwd; echo $HOME $USER $LOGNAME; echo $LANG $SECRET").await;
    let home = machine.home.display();
    assert_eq!(text(&output), format!("{home}\n{home} azureuser azureuser\n\n"));

    let mut command = machine.ssh(["-o", "SetEnv=LANG=C.UTF-8"], "echo $LANG");
    assert_eq!(text(&finish(&mut command).await), "C.UTF-8\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn cat_returns_what_it_is_sent() {
    let machine = Machine::start().await;
    let sent = random_bytes(64 << 20);
    fs::write(machine.file("sent"), &sent).unwrap();
    // The second client asks for new keys after each megabyte.
    for options in [["-o", "RekeyLimit=default"], ["-o", "RekeyLimit=1M"]] {
        let mut command = machine.ssh(options, "cat");
        command.stdin(fs::File::open(machine.file("sent")).unwrap());
        let output = finish(&mut command).await;
        assert!(output.stdout == sent, "{options:?}: {} bytes, {}", output.stdout.len(), errors(&output));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn input_that_nobody_reads_yet_holds_nothing_up() {
    let machine = Machine::start().await;
    let sent = random_bytes(32 << 20);
    fs::write(machine.file("sent"), &sent).unwrap();
    // One connection: while the first command waits for `go`, with its input unread, others are served.
    let mut command = machine.ssh(machine.shared(), "until test -e go; do :; done; cat > received");
    let first = command.stdin(fs::File::open(machine.file("sent")).unwrap()).spawn().unwrap();
    machine.shared_ready().await;
    for number in 0..20 {
        let output = finish(&mut machine.ssh(machine.shared(), &format!("echo {number}"))).await;
        assert_eq!(text(&output), format!("{number}\n"));
    }
    finish(&mut machine.ssh(machine.shared(), "touch go")).await;
    assert!(within(first.wait_with_output()).await.unwrap().status.success());
    assert!(fs::read(machine.home.join("received")).unwrap() == sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn output_waits_for_the_client() {
    let machine = Machine::start().await;
    let length = 256 << 20;
    let mut child = machine
        .ssh(NONE, &format!("echo started >&2; head -c {length} /dev/zero; touch done"))
        .spawn()
        .unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    assert_eq!(within(stderr.lines().next_line()).await.unwrap().unwrap(), "started");
    // Nobody reads: window, pipes and socket buffers together hold a few megabytes.
    assert!(machine.run("test ! -e done").await.status.success());
    let mut stdout = child.stdout.take().unwrap();
    assert_eq!(within(tokio::io::copy(&mut stdout, &mut tokio::io::sink())).await.unwrap(), length);
    assert!(within(child.wait()).await.unwrap().success());
    assert!(machine.home.join("done").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_sessions_share_one_connection() {
    let machine = Arc::new(Machine::start().await);
    let first = machine.ssh(machine.shared(), "cat").stdin(Stdio::piped()).spawn().unwrap();
    machine.shared_ready().await;
    let mut sessions = JoinSet::new();
    for number in 0..40 {
        let machine = Arc::clone(&machine);
        sessions.spawn(async move {
            let mut command =
                machine.ssh(machine.shared(), &format!("head -c 100000 /dev/zero; exit {number}"));
            let output = finish(&mut command).await;
            assert_eq!((output.status.code(), output.stdout.len()), (Some(number), 100_000));
        });
    }
    while let Some(session) = sessions.join_next().await {
        session.unwrap();
    }
    drop(first.stdin);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_ends_with_its_client() {
    for command in
        ["echo $$; exec sleep 100000", "echo $$; trap '' HUP; while :; do read line; done < /dev/tty"]
    {
        let mut machine = Machine::start().await;
        let mut command = machine.ssh(["-tt"], command);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let id = within(lines.next_line()).await.unwrap().unwrap();
        assert!(is_alive(id.trim()));
        within(child.kill()).await.unwrap();
        machine.connection_ended().await;
        assert!(!is_alive(id.trim()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_ends_with_its_client_though_it_reads_nothing() {
    let mut machine = Machine::start().await;
    fs::write(machine.file("sent"), vec![0; 16 << 20]).unwrap();
    let mut command = machine.ssh(NONE, "echo $$; exec sleep 100000");
    let mut child = command.stdin(fs::File::open(machine.file("sent")).unwrap()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let id = within(lines.next_line()).await.unwrap().unwrap();
    within(child.kill()).await.unwrap();
    machine.connection_ended().await;
    assert!(!is_alive(&id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_ends_with_its_server() {
    let mut machine = Machine::start().await;
    let mut child = machine.ssh(NONE, "echo $$; exec sleep 100000").spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let id = within(lines.next_line()).await.unwrap().unwrap();
    // The futures of `serve` are dropped; nobody is left to wait for.
    machine.tasks.shutdown().await;
    assert_eq!(within(child.wait()).await.unwrap().code(), Some(255));
    within(async {
        while is_alive(&id) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_has_the_clients_size_and_follows_it() {
    let machine = Machine::start().await;
    let script = "stty size; trap 'stty size; exit 5' WINCH; echo ready; while :; do read line; done";
    let (mut terminal, mut child) = machine.in_terminal(script, 50, 132);
    terminal.expect("50 132").await;
    terminal.expect("ready").await;
    terminal.pty.resize(pty_process::Size::new(40, 100)).unwrap();
    terminal.expect("40 100").await;
    assert_eq!(within(child.wait()).await.unwrap().code(), Some(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_in_a_terminal_prompts_and_takes_control_c() {
    let machine = Machine::start().await;
    let (mut terminal, mut child) = machine.in_terminal("", 24, 80);
    terminal.expect("azureuser@vm:~$ ").await;
    terminal.type_in("tty && echo on a $TERM\n").await;
    terminal.expect("on a xterm").await;
    terminal.expect("$ ").await;
    // Told by the job itself, which has the terminal then; bash, between two jobs, may take the signal.
    terminal.type_in("sh -c 'echo read\"\"ing; exec cat'\n").await;
    terminal.expect("reading").await;
    terminal.type_in("\x03").await;
    terminal.expect("$ ").await;
    terminal.type_in("exit 4\n").await;
    assert_eq!(within(child.wait()).await.unwrap().code(), Some(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_without_a_terminal_reads_commands() {
    let machine = Machine::start().await;
    let mut child = machine.ssh(["-T"], "").stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"echo hello\nexit 3\n").await.unwrap();
    let output = within(child.wait_with_output()).await.unwrap();
    assert_eq!((text(&output), output.status.code()), ("hello\n".to_owned(), Some(3)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_signs_in_and_a_wrong_one_does_not() {
    let machine = Machine::start().await;
    for (method, user, password, accepted) in [
        ("password", USERNAME, PASSWORD, true),
        ("keyboard-interactive", USERNAME, PASSWORD, true),
        ("password", USERNAME, "wrong", false),
        ("keyboard-interactive", USERNAME, "wrong", false),
        ("password", "root", PASSWORD, false),
    ] {
        let askpass = machine.file("askpass");
        fs::write(&askpass, format!("#!/bin/sh\necho '{password}'\n")).unwrap();
        fs::set_permissions(&askpass, fs::Permissions::from_mode(0o700)).unwrap();
        let mut command = program("ssh");
        command.args(["-o", "PubkeyAuthentication=no", "-l", user]).args(machine.options());
        command.args(["-o", &format!("PreferredAuthentications={method}"), "127.0.0.1", "echo in"]);
        command.env("SSH_ASKPASS", askpass).env("SSH_ASKPASS_REQUIRE", "force");
        let output = finish(&mut command).await;
        let expected = if accepted { (Some(0), "in\n") } else { (Some(255), "") };
        assert_eq!((output.status.code(), &*text(&output)), expected, "{method} {user} {password}");
        assert_eq!(errors(&output).contains("Permission denied"), !accepted, "{}", errors(&output));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_not_listed_does_not_sign_in() {
    let machine = Machine::start().await;
    fs::write(machine.home.join(".ssh/authorized_keys"), "# nobody\n").unwrap();
    let output = machine.run("true").await;
    assert_eq!(output.status.code(), Some(255));
    assert!(errors(&output).contains("Permission denied"), "{}", errors(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_key_is_the_one_that_is_told() {
    let machine = Machine::start().await;
    machine.run("true").await;
    let known = fs::read_to_string(machine.file("known_hosts")).unwrap();
    assert!(known.contains(&machine.public_key), "{known}");
}

#[tokio::test(flavor = "multi_thread")]
async fn scp_copies_both_ways_by_both_protocols() {
    let machine = Machine::start().await;
    let sent = random_bytes(8 << 20);
    fs::write(machine.file("sent"), &sent).unwrap();
    fs::set_permissions(machine.file("sent"), fs::Permissions::from_mode(0o640)).unwrap();
    for protocol in ["-s", "-O"] {
        let remote = format!("{USERNAME}@127.0.0.1:copy{protocol}");
        let mut up = program("scp");
        up.args(machine.options()).args([protocol, "-p"]).arg(machine.file("sent")).arg(&remote);
        succeed(&mut up).await;
        let copy = machine.home.join(format!("copy{protocol}"));
        assert!(fs::read(&copy).unwrap() == sent);
        let (from, to) = (machine.file("sent").metadata().unwrap(), copy.metadata().unwrap());
        assert_eq!(to.permissions().mode() & 0o777, 0o640);
        let seconds =
            |time: std::time::SystemTime| time.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        assert_eq!(seconds(to.modified().unwrap()), seconds(from.modified().unwrap()));

        let mut down = program("scp");
        down.args(machine.options()).arg(protocol).arg(&remote).arg(machine.file("returned"));
        succeed(&mut down).await;
        assert!(fs::read(machine.file("returned")).unwrap() == sent);

        let tree = machine.file("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::write(tree.join("a/b/leaf"), "leaf").unwrap();
        let mut whole = program("scp");
        whole.args(machine.options()).args([protocol, "-r"]).arg(&tree).arg(format!("{remote}.tree"));
        succeed(&mut whole).await;
        let leaf = machine.home.join(format!("copy{protocol}.tree/a/b/leaf"));
        assert_eq!(fs::read_to_string(leaf).unwrap(), "leaf");
    }
    let mut tilde = program("scp");
    tilde.args(machine.options()).arg(format!("{USERNAME}@127.0.0.1:~/copy-s")).arg(machine.file("tilde"));
    succeed(&mut tilde).await;
    assert!(fs::read(machine.file("tilde")).unwrap() == sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn sftp_does_what_a_batch_says() {
    let machine = Machine::start().await;
    let sent = random_bytes(3 << 20);
    fs::write(machine.file("sent"), &sent).unwrap();
    for (name, length) in [("part", 1_000_000), ("short", 2_000_000)] {
        fs::write(machine.file(name), &sent[..length]).unwrap();
    }
    let output = machine
        .sftp(
            "mkdir folder\ncd folder\nput sent one\nrename one two\nln -s two link\nln two hard\n\
             get link got\nreget two part\nput short part\nreput sent part\nchmod 600 two\nls -l\npwd\n\
             rm hard\nmkdir inner\nrmdir inner\nls -1",
        )
        .await;
    assert!(output.status.success(), "{}", errors(&output));
    let folder = machine.home.join("folder");
    for copy in [machine.file("got"), machine.file("part"), folder.join("two"), folder.join("part")] {
        assert!(fs::read(&copy).unwrap() == sent, "{}", copy.display());
    }
    assert_eq!(fs::read_link(folder.join("link")).unwrap(), Path::new("two"));
    assert_eq!(folder.join("two").metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!folder.join("hard").exists());
    let listing = text(&output);
    assert!(listing.contains("Remote working directory: /folder"), "{listing}");
    assert!(listing.contains("-rw-------") && listing.ends_with("link\npart\ntwo\n"), "{listing}");

    // More names than one answer holds.
    for number in 0..250 {
        fs::write(folder.join(format!("many-{number}")), "").unwrap();
    }
    assert_eq!(text(&machine.sftp("ls -1 folder/many-*").await).lines().count(), 251);
    assert!(!machine.sftp("rename folder/two folder/missing/two").await.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn sftp_does_not_leave_the_home() {
    let machine = Machine::start().await;
    fs::write(machine.file("secret"), "outside").unwrap();
    fs::write(machine.file("sent"), "inside").unwrap();
    symlink(machine.folder.path(), machine.home.join("absolute")).unwrap();
    symlink("..", machine.home.join("relative")).unwrap();
    symlink("../secret", machine.home.join("file")).unwrap();
    for batch in [
        "get ../secret got",
        "get /../secret got",
        "get absolute/secret got",
        "get relative/secret got",
        "get file got",
        "put sent relative/planted",
        "put sent absolute/planted",
        "put sent file",
        "cd relative",
        "chmod 777 file",
        "rm relative/secret",
        "mkdir relative/planted",
        "rename relative/secret mine",
        "ln relative/secret mine",
        "ln -s /etc etc",
    ] {
        let output = machine.sftp(batch).await;
        assert_eq!(output.status.code(), Some(1), "{batch}: {}", text(&output));
        assert!(!machine.file("got").exists(), "{batch}");
        assert!(!machine.file("planted").exists(), "{batch}");
        assert_eq!(fs::read_to_string(machine.file("secret")).unwrap(), "outside", "{batch}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rsync_copies_both_ways() {
    let machine = Machine::start().await;
    let tree = machine.file("tree");
    fs::create_dir_all(tree.join("a/b")).unwrap();
    for (name, length) in [("a/b/large", 5 << 20), ("a/small", 10), ("empty", 0)] {
        fs::write(tree.join(name), random_bytes(length)).unwrap();
    }
    let shell = format!("ssh {}", machine.options().join(" "));
    let remote = format!("{USERNAME}@127.0.0.1:tree/");
    let returned = machine.file("returned");
    for (from, to) in
        [(format!("{}/", tree.display()), remote.clone()), (remote, returned.display().to_string())]
    {
        succeed(program("rsync").args(["-a", "-e", &shell, &from, &to])).await;
    }
    for name in ["a/b/large", "a/small", "empty"] {
        assert!(fs::read(returned.join(name)).unwrap() == fs::read(tree.join(name)).unwrap(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_are_forwarded_both_ways_and_to_loopback_only() {
    let machine = Machine::start().await;
    let (echo, _tasks) = echo_server().await;
    let sent = random_bytes(4 << 20);

    // ssh -L: the client tells on stderr when it listens.
    let local = free_port().await;
    let mut command = machine.ssh(["-L", &format!("{local}:127.0.0.1:{echo}")], "echo listening; cat");
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(within(lines.next_line()).await.unwrap().unwrap(), "listening");
    assert!(round_trip(local, &sent).await == sent);
    drop(child.stdin.take());
    assert!(within(child.wait()).await.unwrap().success());

    // ssh -R: the port is the server's choice, and is told on stderr.
    let mut command = machine.ssh(["-o", "LogLevel=INFO", "-R", &format!("0:127.0.0.1:{echo}")], "cat");
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let allocated = loop {
        let line = within(lines.next_line()).await.unwrap().unwrap();
        if let Some(rest) = line.strip_prefix("Allocated port ") {
            break rest.split(' ').next().unwrap().parse().unwrap();
        }
    };
    assert!(round_trip(allocated, &sent).await == sent);
    drop(child.stdin.take());
    assert!(within(child.wait()).await.unwrap().success());

    // ssh -W: standard input and output are the connection. 192.0.2.1 is nobody's (RFC 5737).
    let output = finish(&mut machine.ssh(["-o", "LogLevel=INFO", "-W", "192.0.2.1:22"], "")).await;
    assert_ne!(output.status.code(), Some(0));
    assert!(errors(&output).contains("administratively prohibited"), "{}", errors(&output));
    let output = finish(
        &mut machine.ssh(["-o", "LogLevel=INFO", "-W", &format!("127.0.0.1:{}", free_port().await)], ""),
    )
    .await;
    assert!(errors(&output).contains("connect failed"), "{}", errors(&output));
}

/// A server with its own home and client key, on a port of its own.
struct Machine {
    folder: tempfile::TempDir,
    home: PathBuf,
    port: u16,
    public_key: String,
    ended: mpsc::UnboundedReceiver<()>,
    tasks: JoinSet<()>,
}

impl Machine {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // The home's real path is what `pwd` shows.
        let home = folder.path().canonicalize().unwrap().join("home");
        fs::create_dir_all(home.join(".ssh")).unwrap();
        let key = folder.path().join("key");
        generate_client_key(&key).unwrap();
        fs::copy(key.with_extension("pub"), home.join(".ssh/authorized_keys")).unwrap();
        let server = SshServer::new(SshOptions {
            home: home.clone(),
            username: USERNAME.into(),
            password: PASSWORD.into(),
            host_key: folder.path().join("host_key"),
            hostname: "vm".into(),
            entra: None,
        });
        let server = Arc::new(server.unwrap());
        let public_key = server.public_key();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (told, ended) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (server, told) = (Arc::clone(&server), told.clone());
                connections.spawn(async move {
                    server.serve(stream).await;
                    _ = told.send(());
                });
            }
        });
        Self { folder, home, port, public_key, ended, tasks }
    }

    async fn connection_ended(&mut self) {
        within(self.ended.recv()).await.unwrap();
    }

    /// What all of OpenSSH's clients take: this machine, and nothing of the developer's own.
    fn options(&self) -> Vec<String> {
        let mut options = vec!["-F".into(), "/dev/null".into()];
        for option in [
            format!("Port={}", self.port),
            format!("User={USERNAME}"),
            format!("IdentityFile={}", self.file("key").display()),
            "IdentitiesOnly=yes".into(),
            "IdentityAgent=none".into(),
            format!("UserKnownHostsFile={}", self.file("known_hosts").display()),
            "GlobalKnownHostsFile=/dev/null".into(),
            "StrictHostKeyChecking=accept-new".into(),
            "LogLevel=ERROR".into(),
        ] {
            options.extend(["-o".into(), option]);
        }
        options
    }

    /// One connection for several clients: the first to come makes it.
    fn shared(&self) -> [String; 4] {
        let path = format!("ControlPath={}", self.file("control").display());
        ["-o".into(), "ControlMaster=auto".into(), "-o".into(), path]
    }

    async fn shared_ready(&self) {
        let ready = async {
            while !finish(&mut self.ssh([&["-O".into(), "check".into()], &self.shared()[2..]].concat(), ""))
                .await
                .status
                .success()
            {}
        };
        within(ready).await;
    }

    /// `ssh` with options in front of the machine's own. An empty command is a shell, or `-W`.
    fn ssh<O: AsRef<OsStr>>(&self, options: impl IntoIterator<Item = O>, command: &str) -> Command {
        let mut ssh = program("ssh");
        ssh.args(options).args(self.options()).arg("127.0.0.1");
        if !command.is_empty() {
            ssh.arg(command);
        }
        ssh
    }

    async fn run(&self, command: &str) -> Output {
        finish(&mut self.ssh(NONE, command)).await
    }

    async fn sftp(&self, batch: &str) -> Output {
        let file = self.file("batch");
        fs::write(&file, batch).unwrap();
        let mut sftp = program("sftp");
        sftp.args(self.options()).arg("-b").arg(file).arg("127.0.0.1").current_dir(self.folder.path());
        finish(&mut sftp).await
    }

    fn in_terminal(&self, command: &str, rows: u16, columns: u16) -> (Terminal, Child) {
        let (pty, pts) = pty_process::open().unwrap();
        pty.resize(pty_process::Size::new(rows, columns)).unwrap();
        let mut ssh = pty_process::Command::new("ssh").args(["-t"]).args(self.options()).arg("127.0.0.1");
        if !command.is_empty() {
            ssh = ssh.arg(command);
        }
        let child = ssh.env("TERM", "xterm").kill_on_drop(true).spawn(pts).expect(INSTALL);
        (Terminal { pty, seen: String::new() }, child)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// The terminal that a client runs in.
struct Terminal {
    pty: pty_process::Pty,
    seen: String,
}

impl Terminal {
    /// Reads on until `text` has come.
    async fn expect(&mut self, text: &str) {
        let mut buffer = [0; 4096];
        while !self.seen.contains(text) {
            let length = within(self.pty.read(&mut buffer)).await.unwrap_or(0);
            assert!(length > 0, "{text:?} did not come, but {:?}", self.seen);
            self.seen += &String::from_utf8_lossy(&buffer[..length]);
        }
        self.seen = self.seen.split_once(text).unwrap().1.to_owned();
    }

    async fn type_in(&mut self, text: &str) {
        self.pty.write_all(text.as_bytes()).await.unwrap();
    }
}

fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

async fn finish(command: &mut Command) -> Output {
    let name = command.as_std().get_program().to_owned();
    match within(command.output()).await {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            panic!("{} is missing: {INSTALL}", name.display())
        }
        output => output.unwrap(),
    }
}

async fn succeed(command: &mut Command) {
    let output = finish(command).await;
    assert!(output.status.success(), "{command:?}: {}", errors(&output));
}

/// Fails a test that hangs.
async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(HANGS, future).await.expect("nothing happened for two minutes")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn random_bytes(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}

fn is_alive(process: &str) -> bool {
    std::process::Command::new("kill").args(["-0", process]).stderr(Stdio::null()).status().unwrap().success()
}

async fn echo_server() -> (u16, JoinSet<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            connections.spawn(async move {
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await.unwrap();
                write.shutdown().await.unwrap();
            });
        }
    });
    (port, tasks)
}

async fn round_trip(port: u16, sent: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut read, mut write) = stream.split();
    let mut received = Vec::new();
    let writing = async {
        write.write_all(sent).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let reading = async { read.read_to_end(&mut received).await.unwrap() };
    within(async { tokio::join!(writing, reading) }).await;
    received
}

async fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap().port()
}

const USERNAME: &str = "azureuser";
const PASSWORD: &str = "correct horse battery staple";
const NONE: [&str; 0] = [];
const INSTALL: &str = "apt-get install openssh-client rsync";

/// Longer than any step takes on a slow machine, and less than the whole suite may.
const HANGS: Duration = Duration::from_secs(120);
