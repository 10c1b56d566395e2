//! stub
pub struct Diagnosis;
impl Diagnosis {
    pub fn to_json(&self) -> String {
        String::new()
    }
    pub fn can_run_guests(&self) -> bool {
        true
    }
}
impl std::fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "stub")
    }
}
pub fn examine() -> Diagnosis {
    Diagnosis
}
