//! How the kernel runs the process.

use serde_json::{Value, json};

use crate::fixture::{Bundle, stderr, stdout, with_host_programs};
use crate::refusal;

fn python(script: &str, change: impl FnOnce(&mut Value)) -> Bundle {
    Bundle::new(|spec| {
        with_host_programs(spec);
        spec["process"]["args"] = json!(["/usr/bin/python3", "-c", script]);
        change(spec);
    })
}

/// What works with the privilege, or else the error that names the field.
#[track_caller]
fn effect_or_refusal(bundle: &Bundle, effect: &str, field: &str) {
    let output = bundle.run();
    if output.status.success() {
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), effect);
    } else {
        let text = stderr(&output);
        assert!(text.contains(field) && text.contains("Operation not permitted"), "{text}");
    }
}

#[test]
fn the_scheduler_is_the_one_of_the_spec() {
    let script =
        "import os; print(os.sched_getscheduler(0), os.sched_getparam(0).sched_priority, os.nice(0))";
    let batch = python(script, |spec| {
        spec["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 7});
    });
    assert_eq!(stdout(&batch.run()), "3 0 7\n");
    let idle = python(script, |spec| spec["process"]["scheduler"] = json!({"policy": "SCHED_IDLE"}));
    // What the specification leaves out is inherited.
    let own = rustix::process::getpriority_process(None).unwrap();
    assert_eq!(stdout(&idle.run()), format!("5 0 {own}\n"));
    let fifo = python(script, |spec| {
        spec["process"]["scheduler"] = json!({"policy": "SCHED_FIFO", "priority": 10});
    });
    effect_or_refusal(&fifo, "1 10 0", "process.scheduler");
    let reset = python(script, |spec| {
        spec["process"]["scheduler"] =
            json!({"policy": "SCHED_OTHER", "nice": 3, "flags": ["SCHED_FLAG_RESET_ON_FORK"]});
    });
    // SCHED_RESET_ON_FORK is or'ed to what is got.
    assert_eq!(stdout(&reset.run()), format!("{} 0 3\n", 0x4000_0000));
}

#[test]
fn a_scheduler_that_makes_no_sense_is_refused() {
    let text = |scheduler: Value| refusal(&Bundle::new(|spec| spec["process"]["scheduler"] = scheduler));
    assert!(text(json!({"policy": "SCHED_ISO"})).contains("process.scheduler.policy"));
    assert!(text(json!({"policy": "SCHED_RR"})).contains("process.scheduler.priority"));
    assert!(text(json!({"policy": "SCHED_OTHER", "flags": ["X"]})).contains("process.scheduler.flags"));
    // The kernel's own refusal: no deadline without a runtime.
    assert!(text(json!({"policy": "SCHED_DEADLINE"})).contains("process.scheduler: sched_setattr"));
}

#[test]
fn io_priority_is_the_one_of_the_spec() {
    let script = |class: &str, priority: u32| {
        Bundle::new(|spec| {
            spec["process"]["args"] = json!(["ionice", "-p", "1"]);
            spec["process"]["ioPriority"] = json!({"class": class, "priority": priority});
        })
    };
    assert_eq!(stdout(&script("IOPRIO_CLASS_BE", 6).run()).trim(), "best-effort: prio 6");
    assert_eq!(stdout(&script("IOPRIO_CLASS_IDLE", 0).run()).trim(), "idle");
    effect_or_refusal(&script("IOPRIO_CLASS_RT", 2), "realtime: prio 2", "process.ioPriority");
    assert!(refusal(&script("IOPRIO_CLASS_NONE", 0)).contains("process.ioPriority.class"));
    assert!(refusal(&script("IOPRIO_CLASS_BE", 9)).contains("process.ioPriority.priority"));
}

#[test]
fn the_execution_domain_is_the_one_of_the_spec() {
    let machine = |domain: &str| {
        Bundle::new(|spec| {
            spec["process"]["args"] = json!(["uname", "-m"]);
            spec["linux"]["personality"] = json!({"domain": domain});
        })
    };
    let native = stdout(&machine("LINUX").run());
    let narrow = stdout(&machine("LINUX32").run());
    assert_ne!(native, narrow);
    assert!(["i686\n", "armv8l\n", "armv7l\n"].contains(&narrow.as_str()), "{narrow}");
    assert!(refusal(&machine("BSD")).contains("linux.personality.domain"));
}

#[test]
fn the_memory_policy_is_the_one_of_the_spec() {
    let policy = |policy: Value| {
        Bundle::new(|spec| {
            spec["process"]["args"] = json!(["sh", "-c", "head -n 1 /proc/self/numa_maps"]);
            spec["linux"]["memoryPolicy"] = policy;
        })
    };
    if std::path::Path::new("/proc/self/numa_maps").exists() {
        let output = stdout(&policy(json!({"mode": "MPOL_BIND", "nodes": "0"})).run());
        assert_eq!(output.split(' ').nth(1), Some("bind:0"), "{output}");
        let flags = json!({"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]});
        let output = stdout(&policy(flags).run());
        assert_eq!(output.split(' ').nth(1), Some("interleave=static:0"), "{output}");
    } else {
        let text = refusal(&policy(json!({"mode": "MPOL_BIND", "nodes": "0"})));
        assert!(text.contains("linux.memoryPolicy: set_mempolicy"), "{text}");
    }
    assert!(
        refusal(&policy(json!({"mode": "MPOL_BIND", "nodes": "x"}))).contains("linux.memoryPolicy.nodes")
    );
    assert!(refusal(&policy(json!({"mode": "BIND", "nodes": "0"}))).contains("linux.memoryPolicy.mode"));
}

#[test]
fn further_processes_have_their_own_cpus() {
    let bundle = Bundle::new(|spec| {
        spec["process"]["args"] = json!(["sleep", "1000"]);
        spec["process"]["scheduler"] = json!({"policy": "SCHED_BATCH"});
        spec["linux"]["personality"] = json!({"domain": "LINUX32"});
    });
    assert!(bundle.create().status.success());
    assert!(bundle.command(&["start", &bundle.id]).status.success());
    let cpus = |affinity: Value| {
        let mut process = bundle.spec()["process"].clone();
        process["args"] = json!(["sh", "-c", "grep Cpus_allowed_list /proc/self/status | cut -f2; uname -m"]);
        process["execCPUAffinity"] = affinity;
        let file = bundle.path().join("process.json");
        std::fs::write(&file, process.to_string()).unwrap();
        bundle.command(&["exec", "--process", file.to_str().unwrap(), &bundle.id])
    };
    // The second processor, where there is one.
    let last = std::thread::available_parallelism().unwrap().get().min(2) - 1;
    let text = stdout(&cpus(json!({"initial": "0", "final": last.to_string()})));
    assert!(text.starts_with(&format!("{last}\n")) && !text.contains("x86_64"), "{text}");
    assert!(stdout(&cpus(json!({"final": "0"}))).starts_with("0\n"));
    let all = stdout(&cpus(json!({})));
    assert_eq!(stdout(&cpus(json!({"initial": "0"}))), all, "all that the group has");
    assert!(stderr(&cpus(json!({"initial": "0-"}))).contains("process.execCPUAffinity.initial"));
    assert!(stderr(&cpus(json!({"final": "1000"}))).contains("process.execCPUAffinity"));
    assert!(bundle.command(&["delete", "--force", &bundle.id]).status.success());
}
