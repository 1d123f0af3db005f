use super::*;

fn found(text: &str) -> Vec<(&'static str, String)> {
    let mut all = Vec::new();
    Index::new().scan(text, |rule, score, range| {
        if score >= 0.8 {
            all.push((rule.rsplit('.').next().unwrap(), text[range].to_owned()));
        }
    });
    all
}

// Examples from the issuers' documents and from the encyclopaedia, and such as the sums give.
#[test]
fn identifiers_are_found_and_their_neighbours_not() {
    for (name, word, value) in [
        ("cn_resident", "", "11010519491231002X"),
        ("mx_curp", "", "HEGG560427MVZRRL04"),
        ("it_fiscal_code", "", "MRTMTT91D08F205J"),
        ("ch_ahv", "", "756.9217.0769.85"),
        ("fr_nir", "", "2 55 08 14 168 025 38"),
        ("fi_hetu", "", "131052-308T"),
        ("br_cpf", "", "111.444.777-35"),
        ("br_cpf", "CPF", "11144477735"),
        ("br_cnpj", "", "11.222.333/0001-81"),
        ("be_national_number", "", "85.07.30-033.28"),
        ("kr_rrn", "", "960121-1234567"),
        ("in_pan", "", "ABBPM4567S"),
        ("de_social_security", "", "15070649C103"),
        ("uk_nino", "", "YZ 61 48 68 B"),
        ("sg_nric", "", "S2740116C"),
        ("sg_nric", "", "M4332674T"),
        ("es_nie", "", "Z8078221M"),
        ("es_dni", "DNI", "12345678Z"),
        ("hk_id", "", "A123456(3)"),
        ("tw_id", "taiwan", "A123456789"),
        ("cl_rut", "", "30.686.957-4"),
        ("ar_cuil", "", "20-05536168-2"),
        ("no_national_id", "fødselsnummer", "15021951940"),
        ("se_personal_number", "", "20110925-2385"),
        ("se_personal_number", "personnummer", "871220-2384"),
        ("cz_birth_number", "", "710319/2745"),
        ("us_itin", "", "911-70-1234"),
        ("ca_sin", "my SIN is", "130-692-544"),
        ("uk_nhs", "NHS number", "943 476 5919"),
        ("de_tax_id", "Steuer-ID", "86095742719"),
        ("nl_bsn", "BSN:", "111222333"),
        ("pl_pesel", "PESEL", "44051401458"),
        ("pt_nif", "NIF", "501442600"),
        ("at_social_security", "SVNR", "1237 010180"),
        ("ie_pps", "PPS", "1234567FA"),
        ("ro_cnp", "CNP", "1800101221144"),
        ("hr_oib", "OIB", "33392005961"),
        ("tr_identity", "TC Kimlik No:", "10000000146"),
        ("za_id", "ID number", "8001015009087"),
        ("th_id", "thai ID", "1234567890121"),
        ("in_aadhaar", "Aadhaar", "3998 7654 3211"),
        ("jp_my_number", "My Number", "123456789018"),
        ("au_tfn", "TFN", "876 543 210"),
        ("au_medicare", "medicare", "2123 45670 1"),
        ("il_id", "Israeli ID", "123456782"),
    ] {
        let has = |value: &str| {
            let text = format!("{word} {value}, as written here");
            found(&text).iter().any(|(rule, text)| *rule == name && text == value)
        };
        assert!(has(value), "{name}: {value}");
        assert!(!has(&format!("9{value}")) && !has(&format!("{value}9")), "{name} in a longer one");
        if matches!(name, "kr_rrn" | "in_pan" | "uk_nino" | "us_itin" | "au_medicare") {
            continue;
        }
        // Every other digit in the place of one is caught, in at least nine of ten.
        let place = value.rfind(|mark: char| mark.is_ascii_digit()).unwrap();
        let others =
            (b'0'..=b'9').map(char::from).filter(|digit| !value[place..].starts_with(*digit));
        let passed = others.filter(|digit| {
            let mut other = value.to_owned();
            other.replace_range(place..=place, &digit.to_string());
            has(&other)
        });
        assert!(passed.count() <= 1, "{name}");
    }
}

#[test]
fn bare_digits_are_nothing_without_a_word() {
    for text in [
        "130-692-544",
        "943 476 5919",
        "86095742719",
        "111222333",
        "since 130692544",
        "using 876543210",
        "1700000000000",
    ] {
        assert_eq!(found(text), [], "{text}");
    }
}
