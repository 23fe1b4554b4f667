//! The commands as scripts and people use them: what they say of a name that is mistyped,
//! completions in real shells, recordings in a real terminal, and that nothing of a terminal reaches
//! a pipe.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "commands_support/json.rs"]
mod json;
#[path = "commands_support/terminal.rs"]
mod terminal;

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use gantry_library::Library;
use gantry_tests::{Cluster, Gantry, installed, until};
use portable_pty::CommandBuilder;
use rustix::process::{Pid, Signal, kill_process};
use terminal::Terminal;

const PROGRAM: &str = env!("CARGO_BIN_EXE_gantry-under-test");

/// A job's name that tries to pass for another; the scheduler takes none with control characters.
const HOSTILE: &str = "evil\u{202e}胸部\u{200f}";

/// A cluster with a node, one job that is done, one that failed and one that waits.
fn cluster() -> Result<Cluster> {
    let mut cluster = Cluster::start(PROGRAM)?;
    cluster.join("cpu-1", "cores = 2\nworkers = 1")?;
    let line = "echo '::metric loss 0.5 1'; printf 'one\\ntwo \\033[31mred\\n'";
    cluster.gantry.json(&["submit", "--wait", "--name", "done", "--", "sh", "-c", line])?;
    let failed = cluster.gantry.run(&["submit", "--wait", "--name", HOSTILE, "--", "false"])?;
    ensure!(failed.status.code() == Some(1), "{}", String::from_utf8_lossy(&failed.stderr));
    cluster.gantry.json(&["submit", "--name", "waits", "--cores", "2", "--hold", "--", "true"])?;
    Ok(cluster)
}

#[test]
fn nothing_of_a_terminal_reaches_a_pipe_and_a_reader_may_leave() -> Result<()> {
    let cluster = cluster()?;
    for line in
        ["queue -a", "jobs", "job j2", "nodes", "gpus", "top", "events", "history", "--help"]
    {
        let words: Vec<&str> = line.split(' ').collect();
        let output = cluster.gantry.run(&words)?;
        let text = String::from_utf8(output.stdout)?;
        ensure!(output.status.success() && !text.is_empty(), "{line}: {text}");
        let steers = |c: char| c.is_control() && c != '\n' || c == '\u{202e}' || c == '\u{200f}';
        ensure!(!text.contains(steers), "{line} prints what steers a terminal: {text:?}");
    }
    // What a program has written goes to a file byte for byte.
    let output = cluster.gantry.run(&["logs", "j1"])?;
    ensure!(output.stdout.ends_with(b"two \x1b[31mred\n"), "{:?}", output.stdout);
    let mut child = cluster.gantry.command(&["events"]).stdout(Stdio::piped()).spawn()?;
    drop(child.stdout.take());
    ensure!(child.wait()?.success(), "a reader that leaves is no failure");
    Ok(())
}

#[test]
fn what_is_mistyped_gets_the_nearest() -> Result<()> {
    let cluster = cluster()?;
    for (line, code, end) in [
        ("drain cpu1 --reason x", 2, "did you mean cpu-1"),
        ("series cpu-11", 2, "did you mean cpu-1"),
        ("gpus cpu-2", 2, "did you mean cpu-1"),
        ("job j33", 2, "did you mean j3"),
        ("cancel j22", 2, "did you mean j2"),
        ("logs j12", 2, "did you mean j2"),
        ("config explain nodetimeout", 2, "did you mean node_timeout"),
    ] {
        let refusal = cluster.gantry.refusal(&line.split(' ').collect::<Vec<_>>())?;
        ensure!(refusal.0 == code && refusal.1.contains("did you mean"), "{line}: {refusal:?}");
        // Of several that are equally near any will do.
        let exact = ["cpu1", "nodetimeout"].iter().any(|word| line.contains(word));
        ensure!(!exact || refusal.1.ends_with(end), "{line}: {refusal:?}");
    }
    let output = cluster.gantry.run(&["queue", "--limt", "3"])?;
    let text = String::from_utf8(output.stderr)?;
    ensure!(text.contains("--limit") && output.status.code() == Some(2), "{text}");
    let (code, sentence) = cluster.gantry.refusal(&["queue", "--as", "nobody"])?;
    ensure!(code == 2 && sentence.contains("operator"), "{sentence}");
    Ok(())
}

/// A folder with the program under its own name, for the PATH of a shell.
fn on_path(cluster: &Cluster) -> Result<String> {
    let folder = cluster.folder().join("bin");
    std::fs::create_dir_all(&folder)?;
    std::os::unix::fs::symlink(Path::new(PROGRAM), folder.join("gantry"))?;
    Ok(format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default()))
}

#[test]
fn shells_complete_jobs_and_nodes_that_there_are() -> Result<()> {
    let cluster = cluster()?;
    let path = on_path(&cluster)?;
    let shell = |program: &str, script: &str| -> Result<String> {
        let output = Command::new(program)
            .args(["-c", script])
            .env("PATH", &path)
            .env("GANTRY_CLUSTER", cluster.folder().join("scheduler"))
            .stdin(Stdio::null())
            .output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    };
    let lines = [
        ("gantry job ", &["j1", "j2", "j3"][..]),
        ("gantry cancel j", &["j1", "j2", "j3"]),
        ("gantry drain c", &["cpu-1"]),
        ("gantry qu", &["queue"]),
        ("gantry config explain node_", &["node_timeout"]),
        ("gantry submit --no", &["--node"]),
        ("gantry nodes dr", &["drain"]),
        ("gantry node drain c", &["cpu-1"]),
        ("gantry pipeline plan che", &["chest-ct"]),
    ];
    if installed("bash", "completions in bash") {
        for (line, expected) in lines {
            let words: Vec<&str> = line.split(' ').collect();
            let (place, typed) = (words.len() - 1, words[words.len() - 1]);
            let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
            let script = format!(
                "source <(gantry completions bash); COMP_WORDS=({}); COMP_CWORD={place}; COMP_TYPE=9; \
                 $(complete -p gantry | sed 's/.*-F \\([^ ]*\\) .*/\\1/') gantry '{typed}' ''; \
                 printf '%s\\n' \"${{COMPREPLY[@]}}\"",
                quoted.join(" ")
            );
            let found = shell("bash", &script)?;
            for word in expected {
                ensure!(found.lines().any(|one| one.trim() == *word), "{line}: {found:?}");
            }
        }
    }
    if installed("fish", "completions in fish") {
        for (line, expected) in lines {
            let found =
                shell("fish", &format!("gantry completions fish | source; complete -C '{line}'"))?;
            for word in expected {
                let begins = |one: &str| one.split('\t').next() == Some(word);
                ensure!(found.lines().any(begins), "{line}: {found:?}");
            }
        }
    }
    if installed("zsh", "completions in zsh") {
        zsh_completes(&cluster, &path, &lines)?;
    }
    Ok(())
}

/// Types lines and TAB into a real zsh, in a terminal of its own.
fn zsh_completes(cluster: &Cluster, path: &str, lines: &[(&str, &[&str])]) -> Result<()> {
    let mut command = CommandBuilder::new("zsh");
    command.args(["-f", "-i"]);
    command.env("TERM", "xterm-256color");
    command.env("PATH", path);
    command.env("HOME", cluster.folder());
    command.env("GANTRY_CLUSTER", cluster.folder().join("scheduler"));
    let mut terminal = Terminal::start(command)?;
    terminal.keys(
        "autoload -Uz compinit; compinit -u -D; source <(gantry completions zsh); PS1='ready> '\r",
    )?;
    terminal.shows(&["\nready> "])?;
    for (line, expected) in lines {
        // The line before is cut, and the screen cleared of what it has shown.
        terminal.keys("\u{15}\u{c}")?;
        terminal.keys(&format!("{line}\t"))?;
        terminal.shows(expected).with_context(|| (*line).to_owned())?;
    }
    Ok(())
}

#[test]
fn manual_pages_of_all_commands_are_written_and_read_well() -> Result<()> {
    let cluster = Cluster::start(PROGRAM)?;
    let folder = cluster.folder().join("man");
    let help = String::from_utf8(cluster.gantry.run(&["--help"])?.stdout)?;
    cluster.gantry.json(&["man", &folder.display().to_string()])?;
    let commands = help.split("Commands:").nth(1).context("no commands")?;
    let commands = commands.split("Options:").next().unwrap_or_default();
    let names = commands.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names: Vec<&str> = names.filter_map(|line| line.split_whitespace().next()).collect();
    ensure!(names.len() > 40, "{names:?}");
    for name in &names {
        let page = std::fs::read_to_string(folder.join(format!("gantry-{name}.1")))
            .with_context(|| format!("the page of {name}"))?;
        for part in [".TH", ".SH NAME", ".SH SYNOPSIS", ".SH OPTIONS"] {
            ensure!(page.contains(part), "the page of {name} has no {part}");
        }
    }
    for page in ["node-drain", "job-cancel", "events-export", "models-approve", "library-series"] {
        let page = folder.join(format!("gantry-{page}.1"));
        ensure!(page.is_file(), "there is no page {}", page.display());
    }
    for noun in
        "submit queue nodes gpus jobs job logs cancel hold release requeue why drain resume \
                 join top events history report wait preprocess import library label train models \
                 predict similar data config doctor demo scheduler agent completions man watch \
                 record replay pipeline node"
            .split_whitespace()
    {
        ensure!(names.contains(&noun), "there is no command {noun}");
    }
    if installed("man", "reading the pages") {
        let page = folder.join("gantry-submit.1");
        let output = Command::new("man")
            .args(["--warnings", "-l"])
            .arg(&page)
            .env("MANPAGER", "cat")
            .output()?;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success() && errors.is_empty(), "{errors}");
    }
    Ok(())
}

#[test]
fn what_is_written_of_a_series_is_kept_and_found_by_its_words() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let place = folder.path().join("library").display().to_string();
    let library = Library::create(place.as_ref())?;
    let [one, other] = ["1.2", "1.3"].map(|uid| json::store(&library, uid));
    let (one, other) = (one?, other?);
    let file = |name: &str, text: &[u8]| -> Result<String> {
        let path = folder.path().join(name);
        std::fs::write(&path, text)?;
        Ok(path.display().to_string())
    };
    let gantry = Gantry::new(PROGRAM);
    let keep = |series: &str, file: &str| {
        gantry.json(&["library", "--library", &place, "text", series, file, "--by", "ada"])
    };
    let like = |words: &str| gantry.json(&["similar", "--library", &place, "--text", words]);
    let hostile = "Small nodule \u{1b}[31min the right lung.\nNo effusion.";
    let kept = keep(&one, &file("a", hostile.as_bytes())?)?;
    ensure!(kept == keep(&one, &file("b", hostile.as_bytes())?)?, "the same text is kept once");
    keep(&other, &file("c", b"Both lungs are clear.")?)?;
    let found = like("NODULE lung")?;
    ensure!(found.as_array().is_some_and(|all| all.len() == 1), "{found}");
    ensure!(found[0]["series"] == one.as_str() && found[0]["text"] == kept["id"], "{found}");
    ensure!(like("absent")?.as_array().is_some_and(Vec::is_empty));
    let output = gantry.run(&["similar", "--library", &place, "--text", "nodule"])?;
    let table = String::from_utf8(output.stdout)?;
    ensure!(table.contains("Small nodule") && !table.contains('\u{1b}'), "{table:?}");
    let texts = gantry.json(&["library", "--library", &place, "text", &one])?;
    ensure!(texts[0]["text"] == hostile && texts[0]["by"] == "ada", "{texts}");
    let listed = gantry.run(&["data", "--library", &place, "texts"])?;
    let listed = String::from_utf8(listed.stdout)?;
    ensure!(listed.contains(&one) && !listed.contains("nodule"), "{listed}");
    let nobody = "0123456789abcdef";
    for (words, part) in [
        (&["library", "--library", &place, "text", nobody][..], "no series"),
        (
            &["library", "--library", &place, "text", &one, &file("d", b"\xff\xfe")?, "--by", "a"],
            "UTF-8",
        ),
        (
            &["library", "--library", &place, "text", &one, &file("e", b" .\n")?, "--by", "a"],
            "no words",
        ),
        (
            &["library", "--library", &place, "text", &one, &file("f", b"clear")?],
            "required arguments",
        ),
        (&["similar", "--library", &place, "--text", " , "], "no words to look for"),
        (&["similar", "--library", &place], "required arguments"),
        (&["similar", "--library", &place, &one, "--text", "clear"], "cannot be used with"),
    ] {
        let (code, sentence) = gantry.refusal(words)?;
        ensure!(code == 2 && sentence.contains(part), "{words:?}: {sentence}");
    }
    Ok(())
}

#[test]
fn what_changes_is_told_a_line_each() -> Result<()> {
    let cluster = cluster()?;
    for (format, part) in
        [(&["watch"][..], "cluster "), (&["--json", "watch"], "\"change\":\"begin\"")]
    {
        let mut child = cluster.gantry.command(format).stdout(Stdio::piped()).spawn()?;
        let mut out = child.stdout.take().context("no output")?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = lines.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = out.read(&mut buffer) {
                kept.lock().unwrap().extend(&buffer[..count]);
            }
        });
        let text = || String::from_utf8_lossy(&lines.lock().unwrap()).into_owned();
        until("the first line", || text().contains(part).then_some(()))?;
        cluster.gantry.json(&["drain", "cpu-1", "--reason", "new fan"])?;
        until("the drain", || text().contains("gets no new work: new fan").then_some(()))?;
        cluster.gantry.json(&["resume", "cpu-1"])?;
        until("the return", || text().contains("gets work again").then_some(()))?;
        child.kill()?;
        child.wait()?;
    }
    Ok(())
}

#[test]
fn a_recording_is_replayed_on_the_same_screens_and_a_cut_one_to_its_cut() -> Result<()> {
    let cluster = cluster()?;
    let file = cluster.folder().join("night.rec");
    let path = file.display().to_string();
    let made = cluster.gantry.json(&["record", &path, "--for", "3s"])?;
    ensure!(made["pictures"].as_u64() >= Some(4), "{made}");
    let (code, sentence) = cluster.gantry.refusal(&["record", &path])?;
    ensure!(code == 2 && sentence.contains("there already"), "{sentence}");
    let whole = std::fs::read(&file)?;
    let cut = cluster.folder().join("cut.rec");
    std::fs::write(&cut, &whole[..whole.len() - 7])?;
    for (file, notice) in [(&file, "recording has ended"), (&cut, "recording is cut")] {
        let mut command = CommandBuilder::new(PROGRAM);
        command.args(["replay", "--speed", "100", &file.display().to_string()]);
        command.env("TERM", "xterm-256color");
        command.env("LANG", "C.UTF-8");
        let mut terminal = Terminal::start(command)?;
        terminal.shows(&["cpu-1"])?;
        terminal.shows(&[notice])?;
        terminal.keys("4")?;
        terminal.shows(&["waits"])?;
        // What no picture holds was asked for, and is answered.
        terminal.keys("6")?;
        terminal.shows(&["made a token to join with"])?;
        terminal.keys("q")?;
        let ended = until("the end", || terminal.child.try_wait().ok().flatten())?;
        ensure!(ended.success(), "{}", terminal.text());
    }
    std::fs::write(&cut, b"something else")?;
    let (code, sentence) = cluster.gantry.refusal(&["replay", &cut.display().to_string()])?;
    ensure!(code == 2 && sentence.contains("no recording of gantry"), "{sentence}");
    Ok(())
}

#[test]
fn a_recording_that_is_ended_as_it_begins_can_be_replayed() -> Result<()> {
    let cluster = cluster()?;
    let file = cluster.folder().join("short.rec");
    let path = file.display().to_string();
    let mut child = cluster.gantry.command(&["record", &path]).stdout(Stdio::null()).spawn()?;
    until("its begin", || std::fs::metadata(&file).ok().filter(|file| file.len() > 0))?;
    kill_process(Pid::from_child(&child), Signal::TERM)?;
    child.wait()?;
    let mut command = CommandBuilder::new(PROGRAM);
    command.args(["replay", &path]);
    command.env("TERM", "xterm-256color");
    command.env("LANG", "C.UTF-8");
    let mut terminal = Terminal::start(command)?;
    terminal.shows(&["recording has ended"])?;
    terminal.keys("q")?;
    let ended = until("the end", || terminal.child.try_wait().ok().flatten())?;
    ensure!(ended.success(), "{}", terminal.text());
    Ok(())
}
