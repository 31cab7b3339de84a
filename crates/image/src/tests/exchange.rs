//! Archives and layouts that others write and read.

use super::*;

#[test]
fn a_layout_in_a_directory_goes_out_and_in() {
    let lab = Lab::new();
    let id = lab.import("base:1", &tar(&[("f", Kind::Regular, &"x".repeat(3_000_000))]));
    let layout = lab.directory.path().join("layout");
    let names = ["base:1".to_owned()];
    lab.images.save_directory(&names, &SaveOptions::default(), &layout).unwrap();
    assert!(layout.join("oci-layout").exists());
    assert!(matches!(
        lab.images.save_directory(&names, &SaveOptions::default(), &layout),
        Err(Error::Invalid(_))
    ));
    let other = Lab::new();
    let loaded = other.images.load_directory(&layout, &LoadOptions::default(), &mut |_| {}).unwrap();
    assert_eq!((&loaded[0].id, loaded[0].references[0].familiar().as_str()), (&id, "base:1"));
    let missing = lab.directory.path().join("missing");
    assert!(matches!(
        lab.images.load_directory(&missing, &LoadOptions::default(), &mut |_| {}),
        Err(Error::Io { .. })
    ));
    let unknown = ["unknown".to_owned()];
    let elsewhere = lab.directory.path().join("elsewhere");
    assert!(matches!(
        lab.images.save_directory(&unknown, &SaveOptions::default(), &elsewhere),
        Err(Error::NotFound(_))
    ));
}
