//! `vmm doctor --features`, and that the tests believe it for a reason.

use vmm::features::{Feature, Features};

use crate::harness::needs::{features, needs};
use crate::harness::{boot, vmm};

#[test]
fn the_doctor_shows_every_feature_for_people_and_for_programs() {
    let seen = vmm(&["doctor", "--features"]);
    assert_eq!(seen.code, Some(0), "{seen:?}");
    for feature in Feature::ALL {
        assert!(seen.stdout.contains(feature.name()), "{feature}: {}", seen.stdout);
    }

    let json: Features =
        serde_json::from_str(&vmm(&["doctor", "--features", "--json"]).stdout).expect("JSON");
    assert_eq!(json, *features());
}

#[test]
fn a_host_with_gigabyte_pages_maps_ram_with_them() {
    needs!(GigabytePages);
    let finished =
        boot("01_hello").memory("2G").with(|config| config.page_size = vmm::PageSize::Size1G).run();
    finished.succeeded();
}
