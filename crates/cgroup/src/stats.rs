/// What a control group has used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {}
