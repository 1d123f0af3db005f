//! The identifiers, by country.

use super::{
    Identifier,
    america::{ar_cuil, br_cnpj, br_cpf, ca_sin, cl_rut, mx_curp, us_itin},
    asia::{
        au_medicare, au_tfn, cn_resident, hk_id, in_aadhaar, in_pan, jp_my_number, kr_rrn, sg_nric,
        th_id, tr_identity, tw_id, za_id,
    },
    europe::{
        at_social_security, be_national_number, ch_ahv, cz_birth_number, de_social_security,
        de_tax_id, es_dni, es_nie, fi_hetu, fr_nir, ie_pps, it_fiscal_code, nl_bsn, no_national_id,
        pl_pesel, pt_nif, ro_cnp, se_personal_number, uk_nhs, uk_nino,
    },
    sums::{is_day_month_year, luhn, mod_11_10},
};

const fn id(
    rule: &'static str,
    forms: &'static [&'static str],
    sound: fn(&[u8]) -> bool,
    words: &'static [&'static str],
    alone: f32,
) -> Identifier {
    Identifier { rule, forms, sound, words, alone }
}

/// Those that say more stand first. Forms with marks in them say more than bare digits, so some stand twice.
#[rustfmt::skip]
pub(super) static IDENTIFIERS: &[Identifier] = &[
    id("personal_data.national_id.cn_resident", &["00000000000000000*"], cn_resident, &["身份证", "id card", "resident id"], 0.95),
    id("personal_data.national_id.mx_curp", &["AAAA000000AAAAAA*0"], mx_curp, &["curp"], 0.95),
    id("personal_data.national_id.it_fiscal_code", &["AAAAAA**A**A***A"], it_fiscal_code, &["codice fiscale", "fiscal code", "c.f."], 0.9),
    id("personal_data.national_id.ch_ahv", &["000.0000.0000.00", "0000000000000"], ch_ahv, &["ahv", "avs", "oasi"], 0.9),
    id("personal_data.national_id.fr_nir", &["000000*00000000", "0 00 00 0* 000 000 00", "000000*000000 00"], fr_nir, &["nir", "sécurité sociale", "securite sociale", "insee"], 0.85),
    id("personal_data.national_id.fi_hetu", &["000000-000*", "000000+000*", "000000A000*"], fi_hetu, &["hetu", "henkilötunnus", "personal identity code"], 0.85),
    id("personal_data.national_id.br_cnpj", &["00.000.000/0000-00"], br_cnpj, &["cnpj"], 0.85),
    id("personal_data.national_id.br_cnpj", &["00000000000000"], br_cnpj, &["cnpj"], 0.0),
    id("personal_data.national_id.br_cpf", &["000.000.000-00"], br_cpf, &["cpf"], 0.9),
    id("personal_data.national_id.br_cpf", &["00000000000", "000000000-00"], br_cpf, &["cpf"], 0.0),
    id("personal_data.national_id.be_national_number", &["00.00.00-000.00", "000000-000.00"], be_national_number, &["rijksregister", "registre national", "national number", "nrn", "insz", "niss"], 0.9),
    id("personal_data.national_id.be_national_number", &["00000000000"], be_national_number, &["rijksregister", "registre national", "national number", "nrn", "insz", "niss"], 0.0),
    id("personal_data.national_id.kr_rrn", &["000000-0000000"], kr_rrn, &["rrn", "주민등록번호", "resident registration"], 0.85),
    id("personal_data.national_id.kr_rrn", &["0000000000000"], kr_rrn, &["rrn", "주민등록번호", "resident registration"], 0.0),
    id("personal_data.national_id.in_pan", &["AAAAA0000A"], in_pan, &["pan"], 0.82),
    id("personal_data.national_id.de_social_security", &["00000000A000", "00 000000 A 000"], de_social_security, &["rvnr", "rentenversicherung", "sozialversicherung", "versicherungsnummer"], 0.82),
    id("personal_data.national_id.uk_nino", &["AA000000A", "AA 00 00 00 A", "AA 000000 A", "AA-00-00-00-A"], uk_nino, &["nino", "national insurance", "ni number"], 0.82),
    id("personal_data.national_id.sg_nric", &["A0000000A"], sg_nric, &["nric", "fin", "singapore"], 0.82),
    id("personal_data.national_id.es_nie", &["A0000000A", "A-0000000-A"], es_nie, &["nie", "extranjero"], 0.82),
    id("personal_data.national_id.es_dni", &["00000000A", "00000000-A", "00.000.000-A"], es_dni, &["dni", "nif", "documento nacional"], 0.75),
    id("personal_data.national_id.hk_id", &["A000000(*)"], hk_id, &["hkid", "hong kong id", "身份證"], 0.85),
    id("personal_data.national_id.tw_id", &["A000000000"], tw_id, &["身分證", "taiwan", "national id"], 0.75),
    id("personal_data.national_id.cl_rut", &["00.000.000-*", "0.000.000-*"], cl_rut, &["rut", "run"], 0.85),
    id("personal_data.national_id.cl_rut", &["00000000-*", "0000000-*"], cl_rut, &["rut", "run"], 0.0),
    id("personal_data.national_id.ar_cuil", &["00-00000000-0"], ar_cuil, &["cuil", "cuit"], 0.85),
    id("personal_data.national_id.no_national_id", &["000000 00000", "00000000000"], no_national_id, &["fødselsnummer", "fodselsnummer", "personnummer", "d-number"], 0.75),
    id("personal_data.national_id.se_personal_number", &["00000000-0000"], se_personal_number, &["personnummer", "samordningsnummer", "personal number", "personal identity"], 0.85),
    id("personal_data.national_id.se_personal_number", &["000000-0000", "000000+0000"], se_personal_number, &["personnummer", "samordningsnummer", "personal number", "personal identity"], 0.75),
    id("personal_data.national_id.se_personal_number", &["000000000000", "0000000000"], se_personal_number, &["personnummer", "samordningsnummer", "swedish id", "personal identity"], 0.0),
    id("personal_data.national_id.dk_cpr", &["000000-0000", "0000000000"], is_day_month_year, &["cpr", "cpr-nummer", "personnummer"], 0.0),
    id("personal_data.national_id.cz_birth_number", &["000000/0000"], cz_birth_number, &["rodné číslo", "rodne cislo", "rodné čislo", "birth number"], 0.82),
    id("personal_data.national_id.us_itin", &["000-00-0000"], us_itin, &["itin", "taxpayer"], 0.85),
    id("personal_data.national_id.us_itin", &["000000000", "000 00 0000"], us_itin, &["itin", "taxpayer"], 0.0),
    id("personal_data.national_id.ca_sin", &["000-000-000", "000 000 000", "000000000"], ca_sin, &["sin", "nas", "social insurance", "assurance sociale"], 0.0),
    id("personal_data.national_id.uk_nhs", &["000 000 0000", "000-000-0000", "0000000000"], uk_nhs, &["nhs", "national health"], 0.0),
    id("personal_data.national_id.de_tax_id", &["00000000000", "00 000 000 000"], de_tax_id, &["steuer-id", "steuer id", "steuer-identifikationsnummer", "steueridentifikationsnummer", "idnr", "steuernummer", "identifikationsnummer", "tax id", "tin"], 0.0),
    id("personal_data.national_id.nl_bsn", &["000000000", "0000.00.000", "000.000.000"], nl_bsn, &["bsn", "burgerservicenummer", "sofinummer", "citizen service"], 0.0),
    id("personal_data.national_id.pl_pesel", &["00000000000"], pl_pesel, &["pesel"], 0.0),
    id("personal_data.national_id.pt_nif", &["000000000", "000 000 000"], pt_nif, &["nif", "contribuinte"], 0.0),
    id("personal_data.national_id.at_social_security", &["0000000000", "0000 000000"], at_social_security, &["svnr", "sv-nummer", "sozialversicherung", "versicherungsnummer"], 0.0),
    id("personal_data.national_id.ie_pps", &["0000000A", "0000000AA"], ie_pps, &["pps", "ppsn", "personal public service"], 0.0),
    id("personal_data.national_id.ro_cnp", &["0000000000000"], ro_cnp, &["cnp", "cod numeric"], 0.0),
    id("personal_data.national_id.hr_oib", &["00000000000"], mod_11_10, &["oib", "osobni identifikacijski"], 0.0),
    id("personal_data.national_id.gr_amka", &["00000000000"], |v| is_day_month_year(v) && luhn(v), &["amka", "αμκα"], 0.0),
    id("personal_data.national_id.tr_identity", &["00000000000"], tr_identity, &["kimlik", "tckn", "tc no", "turkish id"], 0.0),
    id("personal_data.national_id.za_id", &["0000000000000", "000000 0000 000"], za_id, &["south african id", "rsa id", "id number", "identity number", "resident number", "refugee id", "id no"], 0.0),
    id("personal_data.national_id.il_id", &["000000000", "00000000-0"], luhn, &["teudat zehut", "תעודת זהות", "israeli id", "ת.ז"], 0.0),
    id("personal_data.national_id.th_id", &["0-0000-00000-00-0"], th_id, &["thai id", "tnin", "บัตรประชาชน", "thai national"], 0.85),
    id("personal_data.national_id.th_id", &["0000000000000"], th_id, &["thai id", "tnin", "บัตรประชาชน", "thai national"], 0.0),
    id("personal_data.national_id.in_aadhaar", &["0000 0000 0000", "0000-0000-0000", "000000000000"], in_aadhaar, &["aadhaar", "aadhar", "uidai", "uid", "आधार"], 0.0),
    id("personal_data.national_id.jp_my_number", &["000000000000", "0000 0000 0000", "0000-0000-0000"], jp_my_number, &["マイナンバー", "個人番号", "my number", "individual number"], 0.0),
    id("personal_data.national_id.au_tfn", &["000 000 000", "000000000"], au_tfn, &["tfn", "tax file"], 0.0),
    id("personal_data.national_id.au_medicare", &["0000 00000 0", "0000000000", "0000-00000-0"], au_medicare, &["medicare"], 0.0),
];
