//! A config.json: it becomes a plan that can be kept and printed, or is refused by the name of a field.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use ponton_oci::runtime::Spec;
use ponton_runtime::host::Host;
use ponton_runtime::plan::{self, Action, Plan, PlanError, PlanInput, ProcessInput};

static HOST: LazyLock<Host> = LazyLock::new(|| Host::probe().unwrap());

fuzz_target!(|data: &[u8]| {
    let Ok(spec) = serde_json::from_slice::<Spec>(data) else { return };
    let policy = spec.linux.as_ref().and_then(|linux| linux.seccomp.as_ref());
    let seccomp = policy.map(|_| Path::new("/run/seccomp/key.bpf"));
    let process = ProcessInput { seccomp, ..ProcessInput::default() };
    let input = PlanInput { id: "fuzz", bundle: Some(Path::new("/bundle")), process, ..PlanInput::default() };
    match plan::plan(&spec, &HOST, &input) {
        Ok(plan) => check(&plan),
        Err(PlanError::Invalid { field, message }) => {
            assert!(!field.is_empty() && !message.is_empty());
        }
    }
});

fn check(plan: &Plan) {
    let kept: Plan = serde_json::from_slice(&serde_json::to_vec(plan).unwrap()).unwrap();
    assert_eq!(&kept, plan);
    assert!(!plan.to_string().is_empty());
    assert!(plan.process().is_some());
    for step in &plan.steps {
        if let Action::Mount(mount) | Action::Rootfs(mount) = &step.action {
            assert!(mount.target.starts_with('/') && !mount.target.contains('\0'));
        }
    }
}
