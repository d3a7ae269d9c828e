//! The README's first command.

use ripstop_tests::Lab;

#[test]
fn every_line_of_the_demo_is_good() {
    let lab = Lab::unborn();
    let walk = lab.must("demo", &[]);
    let lines = walk.lines().filter(|line| line.starts_with("ok "));
    assert_eq!(lines.count(), 11, "{walk}");
    // It is left up, with what to type next.
    assert!(walk.contains("kubectl get pods"), "{walk}");
    lab.must("probe", &[]);
    lab.must("down", &[]);
    let down = lab.must("demo", &["--down"]);
    assert!(down.contains("nothing of it is left"), "{down}");
}
