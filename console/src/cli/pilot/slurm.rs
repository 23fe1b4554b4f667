//! What sbatch is given for pilots: its options, and the script of one of them.

use std::path::{Path, PathBuf};

use gantry_model::{MemoryMib, Millis};

use crate::error::Failure;

/// A shorter job would be gone before it had done anything.
const TIME_MIN: Millis = Millis::from_seconds(60);

/// What pilots are asked of Slurm.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) program: PathBuf,
    pub(super) folder: PathBuf,
    pub(super) name: String,
    pub(super) cores: u32,
    pub(super) gpus: u32,
    pub(super) memory: Option<MemoryMib>,
    pub(super) time: Millis,
    pub(super) partition: Option<String>,
    pub(super) account: Option<String>,
}

/// How long before the limit a pilot leaves: a tenth, from half a minute, in which tasks end, to five.
pub(super) fn margin(time: Millis) -> Millis {
    Millis((time.0 / 10).clamp(30_000, 300_000) / 1000 * 1000)
}

impl Plan {
    /// The name of a node.
    pub(super) fn node(&self, slot: u32) -> String {
        format!("{}-{slot}", self.name)
    }

    /// The folder of a node.
    pub(super) fn place(&self, slot: u32) -> PathBuf {
        self.folder.join(self.node(slot))
    }

    /// The options of sbatch: an array with an element for each node.
    pub(super) fn arguments(&self, slots: &[u32]) -> Vec<String> {
        let slots: Vec<String> = slots.iter().map(ToString::to_string).collect();
        let folder = self.folder.display().to_string();
        // A percent sign begins a field in names of files.
        let pattern = folder.replace('%', "%%");
        let mut all = vec![
            "--parsable".to_owned(),
            format!("--job-name=gantry-{}", self.name),
            format!("--array={}", slots.join(",")),
            "--nodes=1".to_owned(),
            "--ntasks=1".to_owned(),
            format!("--cpus-per-task={}", self.cores),
            format!("--time={}", self.time.0.div_ceil(60_000)),
            format!("--chdir={folder}"),
            format!("--output={pattern}/{}-%a/agent.log", self.name),
            "--open-mode=append".to_owned(),
            // Nothing of who submits but what a program needs to be found.
            "--export=HOME,USER,LOGNAME,PATH,LANG".to_owned(),
        ];
        if self.gpus > 0 {
            all.push(format!("--gres=gpu:{}", self.gpus));
        }
        all.extend(self.memory.map(|memory| format!("--mem={}M", memory.0)));
        all.extend(self.partition.as_ref().map(|name| format!("--partition={name}")));
        all.extend(self.account.as_ref().map(|name| format!("--account={name}")));
        all
    }

    /// What each element runs. It becomes the agent, so that what Slurm says to the job the agent hears.
    pub(super) fn script(&self) -> Result<String, Failure> {
        if self.time < TIME_MIN {
            return Err(Failure::usage(format!(
                "a pilot of {} would be gone before it has done anything; give it {TIME_MIN} or more",
                self.time
            )));
        }
        let leave = Millis(self.time.0 - margin(self.time).0);
        // Where Slurm gives no GPU the agent shall find none either.
        let gpus = if self.gpus == 0 { "export CUDA_VISIBLE_DEVICES=\n" } else { "" };
        let memory = self.memory.map_or_else(String::new, |size| format!(" --set memory={size}"));
        Ok(format!(
            "#!/bin/sh\n{gpus}exec {} agent --dir {}-\"$SLURM_ARRAY_TASK_ID\" --leave-after {leave} --set cores=\"$SLURM_CPUS_ON_NODE\"{memory}\n",
            quoted(&self.program),
            quoted(&self.folder.join(&self.name)),
        ))
    }
}

/// A path as one word of a shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            program: "/opt/it's/gantry".into(),
            folder: "/shared/pilots".into(),
            name: "slurm".into(),
            cores: 8,
            gpus: 2,
            memory: Some(MemoryMib(4096)),
            time: Millis::from_seconds(7200),
            partition: Some("gpu".into()),
            account: None,
        }
    }

    #[test]
    fn an_element_for_each_node_asks_for_what_the_node_is_to_have() {
        let arguments = plan().arguments(&[1, 3]).join(" ");
        for part in [
            "--array=1,3",
            "--cpus-per-task=8",
            "--gres=gpu:2",
            "--mem=4096M",
            "--time=120",
            "--partition=gpu",
            "--output=/shared/pilots/slurm-%a/agent.log",
        ] {
            assert!(arguments.contains(part), "{arguments} lacks {part}");
        }
        assert!(!arguments.contains("--account"));
    }

    #[test]
    fn a_pilot_leaves_before_its_limit() {
        let script = plan().script().unwrap();
        assert!(
            script.contains("--leave-after 1h55m ") && script.contains("'/opt/it'\\''s/gantry'")
        );
        assert!(!script.contains("CUDA_VISIBLE_DEVICES"), "{script}");
        assert!(Plan { gpus: 0, ..plan() }.script().unwrap().contains("CUDA_VISIBLE_DEVICES=\n"));
        let short = Plan { time: Millis::from_seconds(59), ..plan() };
        assert!(short.script().unwrap_err().sentence.contains("1m or more"));
        for (seconds, margin_seconds) in [(60, 30), (120, 30), (1200, 120), (86_400, 300)] {
            let time = Millis::from_seconds(seconds);
            assert_eq!(margin(time), Millis::from_seconds(margin_seconds));
        }
    }
}
