//! Scripts as people have them, and what becomes of them; the command of a job is really run.

use std::process::Command;

use gantry_model::{DependencyKind, GpuPart, MemoryMib, Millis, Sharing, Work};

use super::*;

fn batch(text: &str) -> Batch {
    Batch {
        name: "train.sh".into(),
        text: text.into(),
        folder: "/home/ada/project".into(),
        user: "ada".into(),
        host: "login".into(),
        environment: [
            ("PATH", "/usr/bin:/bin"),
            ("DATA", "/d"),
            ("API_TOKEN", "x"),
            ("HOME", "/h"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into(),
        ..Batch::default()
    }
}

fn job(text: &str) -> Translated {
    translate(&batch(text)).unwrap_or_else(|refused| panic!("{text}: {refused:?}"))
}

/// The job of a script with these options and an empty body.
fn with(options: &str) -> JobSpec {
    let lines: Vec<String> = options.lines().map(|line| format!("#SBATCH {line}")).collect();
    job(&format!("#!/bin/bash\n{}\ntrue\n", lines.join("\n"))).spec
}

fn is(job: &JobSpec, variable: &str, value: &str) -> bool {
    job.environment.get(variable).is_some_and(|one| one == value)
}

#[test]
fn what_each_option_comes_to() {
    type Check = fn(&JobSpec) -> bool;
    let plain = with("");
    assert_eq!((plain.name.as_str(), plain.resources.cores), ("train.sh", 1));
    let cases: [(&str, Check); 34] = [
        ("-J chest", |job| job.name == "chest"),
        ("--job-name=\"a b\"", |job| job.name == "a b"),
        ("-c 8", |job| job.resources.cores == 8 && is(job, "SLURM_CPUS_PER_TASK", "8")),
        ("-n4 -c2", |job| job.resources.cores == 8 && is(job, "SLURM_NTASKS", "4")),
        ("--nodes=1 --ntasks-per-node 3", |job| job.resources.cores == 3),
        ("-N 1-1", |job| is(job, "SLURM_NNODES", "1")),
        ("--mem=4G", |job| job.resources.memory == MemoryMib(4096)),
        ("--mem-per-cpu=500 -c 4", |job| job.resources.memory == MemoryMib(2000)),
        ("--mem-per-gpu=8G --gpus 2", |job| job.resources.memory == MemoryMib(16_384)),
        ("--gres=gpu:2", |job| job.resources.gpus == 2 && job.gpu.part == GpuPart::Whole),
        ("--gres gpu:a100:1", |job| job.gpu.model.as_deref() == Some("a100")),
        ("-G h100:4", |job| job.resources.gpus == 4 && is(job, "SLURM_GPUS", "4")),
        ("--gpus-per-task=2 -n 2", |job| job.resources.gpus == 4),
        ("-t 1-12", |job| job.time_limit == Some(Millis::from_seconds(36 * 3600))),
        ("--time=30 --signal=B:USR1@60", |job| job.warning.is_some()),
        ("--array=0-9%3", |job| job.array.as_ref().is_some_and(|one| one.at_once_max == Some(3))),
        ("-a 1-7:3", |job| is(job, "SLURM_ARRAY_TASK_COUNT", "3")),
        ("-d afterany:j3", |job| {
            job.after.first().is_some_and(|one| one.kind == DependencyKind::Any)
        }),
        ("-p gpu", |job| job.labels.contains("partition=gpu")),
        ("-p gpu -A chest", |job| is(job, "SLURM_JOB_ACCOUNT", "chest")),
        ("--account chest", |job| job.group.as_deref() == Some("chest")),
        ("--nice", |job| job.priority == -100),
        ("--nice=-5", |job| job.priority == 5),
        ("--exclusive", |job| job.sharing == Sharing::Exclusive),
        ("--hold", |job| job.held),
        ("-C \"nvme&avx512\"", |job| job.labels.len() == 2),
        ("-w gpu-3", |job| job.node.as_deref() == Some("gpu-3")),
        ("-L matlab:2,x", |job| job.licences == [("matlab".into(), 2), ("x".into(), 1)].into()),
        ("--tmp=10G", |job| job.resources.scratch == MemoryMib(10_240)),
        ("-o logs/%x-%A_%a.out -a 0-1", |job| {
            job.output.as_deref() == Some("/home/ada/project/logs/%n-%j_%i.out")
        }),
        ("-D /data -o out", |job| job.output.as_deref() == Some("/data/out")),
        ("-o /dev/null -a 0-1", |job| job.output.is_none()),
        ("--export=NONE", |job| !job.environment.contains_key("DATA")),
        ("--export=DATA,X=1", |job| is(job, "X", "1") && !job.environment.contains_key("PATH")),
    ];
    for (options, check) in cases {
        assert!(check(&with(options)), "{options}: {:?}", with(options));
        assert!(
            options.contains("NONE")
                || options.contains("out")
                || options.contains("null")
                || options.contains("X=1")
                || options.contains("1-1")
                || !check(&plain),
            "{options}"
        );
    }
    let all = with("");
    assert!(all.environment["DATA"] == "/d" && !all.environment.contains_key("API_TOKEN"));
    assert!(!all.environment.contains_key("HOME"));
}

#[test]
fn what_would_change_the_meaning_is_refused_with_its_line_and_what_to_do() {
    for (text, line, part) in [
        ("#SBATCH --qos=high\n", 2, "--qos: gantry has no QOS"),
        ("\n#SBATCH -b now+1hour\n", 3, "gantry release"),
        ("#SBATCH --qoss=high\n", 2, "no option of sbatch"),
        ("#SBATCH -N 2 --ntasks-per-node=4\n", 0, "--ranks 8 --nodes 2"),
        ("#SBATCH -d singleton\n", 2, "wait for one another"),
        ("#SBATCH --mem=0\n", 2, "all of a node"),
        ("#SBATCH --mem=lots\n", 2, "no amount of memory"),
        ("#SBATCH -c 0\n", 2, "from 1 on"),
        ("#SBATCH -t\n", 2, "has no value"),
        ("#SBATCH --exclusive=user\n", 2, "not by user"),
        ("#SBATCH --gres=fpga:1\n", 2, "--constraint"),
        ("#SBATCH -C a|b\n", 2, "together"),
        ("#SBATCH -p a,b\n", 2, "one partition"),
        ("#SBATCH -J \"a\n", 2, "a quote"),
        ("#SBATCH -o out -a 0-3\n", 0, "put %a into"),
        ("#SBATCH -o %N.out\n", 0, "%N means nothing"),
        ("#SBATCH --export=NOWHERE\n", 0, "NOWHERE is not set"),
        ("#SBATCH -n 2\nsrun ./a\n", 3, "gantry submit --ranks"),
        ("srun -n 1 ./a\n", 2, "call the program itself"),
        ("x=$(squeue -u me)\n", 2, "gantry queue"),
        ("if true; then sbatch next.sh; fi\n", 2, "gantry submit"),
    ] {
        let refused = translate(&batch(&format!("#!/bin/bash\n{text}true\n"))).unwrap_err();
        let found = refused.iter().any(|one| one.line == line && one.to_string().contains(part));
        assert!(found, "{text}: {refused:?} lacks {part}");
    }
    for (text, part) in [
        ("echo\n", "begins with its interpreter"),
        ("#!/usr/bin/Rscript\n", "gantry submit -- /usr/bin/Rscript"),
    ] {
        let refused = translate(&batch(text)).unwrap_err();
        assert!(refused[0].to_string().contains(part), "{refused:?}");
    }
}

#[test]
fn what_does_not_matter_is_said_or_can_be_named() {
    let text = "#!/bin/bash\n#SBATCH --mail-type=ALL --qos high\n#SBATCH --mail-user x\nscontrol ping\n#SBATCH -c 4\n";
    let ignore = ["qos", "scontrol"].map(str::to_owned).into();
    let translated = translate(&Batch { ignore, ..batch(text) }).unwrap();
    let said: Vec<(usize, &str)> =
        translated.remarks.iter().map(|one| (one.line, one.what.as_str())).collect();
    assert_eq!(
        said,
        [(5, "#SBATCH"), (2, "--mail-type"), (3, "--mail-user"), (0, "--output"), (0, "--export")]
    );
    assert_eq!(translated.spec.resources.cores, 1);
}

/// What the command of a translated script prints as element 3 of the job j12.
fn printed(text: &str, arguments: &[&str]) -> (String, String) {
    let folder = tempfile::TempDir::new().unwrap();
    let arguments = arguments.iter().map(ToString::to_string).collect();
    let place = folder.path().display().to_string();
    let batch = Batch { arguments, folder: place, ..batch(text) };
    let spec = translate(&batch).unwrap_or_else(|refused| panic!("{refused:?}")).spec;
    let Work::Command { arguments, folder: Some(work) } = &spec.work else { panic!() };
    let output = Command::new(&arguments[0])
        .args(&arguments[1..])
        .current_dir(work)
        .env_clear()
        .envs(&spec.environment)
        .envs([("GANTRY_JOB", "j12"), ("GANTRY_INDEX", "3")])
        .output()
        .unwrap();
    let errors =
        std::fs::read_to_string(folder.path().join("errors-j12_3.txt")).unwrap_or_default();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    (String::from_utf8(output.stdout).unwrap(), errors)
}

#[test]
fn a_script_finds_what_it_reads_under_slurm() {
    let text = "#!/bin/bash -e\n#SBATCH -a 0-4%2 -n 2 -c 3 --mem 2G\n#SBATCH -e errors-%A_%a.txt -o o-%a\n\
                echo $0 $1 $# $SLURM_JOB_ID $SLURM_ARRAY_JOB_ID $SLURM_ARRAY_TASK_ID\n\
                echo $SLURM_NTASKS $SLURM_CPUS_PER_TASK $SLURM_MEM_PER_NODE $SLURM_ARRAY_TASK_MAX\n\
                echo \"it's wrong\" >&2\n";
    let (out, errors) = printed(text, &["a b", "c"]);
    assert_eq!(out, "train.sh a b 2 12 12 3\n2 3 2048 4\n");
    assert_eq!(errors, "it's wrong\n");
    let (out, _) = printed("#!/bin/bash\nsrun echo one task\n", &[]);
    assert_eq!(out, "one task\n");
    if Command::new("python3").arg("--version").output().is_ok() {
        let python = "#!/usr/bin/env python3\nimport os, sys\nprint(os.environ['SLURM_JOB_ID'], sys.argv[1:])\n";
        assert_eq!(printed(python, &["x"]).0, "12 ['x']\n");
    }
}
