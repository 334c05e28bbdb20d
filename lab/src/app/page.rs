//! The embedded application's pages: one form, the last enrolments, a receipt. Everything that came from
//! a client passes through [`escape`].

use std::fmt::Write;

use super::store::{Enrolment, Record};

/// Text as it may stand in HTML, in an element or in a quoted attribute.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(c),
        }
    }
    out
}

/// A receipt as it is shown to a student.
pub(crate) fn receipt(id: u64) -> String {
    format!("PRG-{id:06}")
}

/// The form, with the token that makes sending it twice harmless.
pub(crate) fn form<'a>(
    instance: &str,
    token: &str,
    count: u64,
    recent: impl Iterator<Item = &'a Record>,
) -> String {
    let mut body = String::new();
    let _ = write!(
        body,
        r#"<h1>Inscription en ligne <small>Online enrolment</small></h1>
<form method="post" action="/enrolments" class="card">
<input type="hidden" name="token" value="{}">"#,
        escape(token)
    );
    for (name, french, english, complete) in [
        ("family_name", "Nom", "Family name", "family-name"),
        ("first_name", "Prénom", "First name", "given-name"),
        ("establishment", "Établissement", "University or school", "organization"),
    ] {
        let _ = write!(
            body,
            r#"<label for="{name}">{french} <span>{english}</span></label>
<input id="{name}" name="{name}" required maxlength="{}" autocomplete="{complete}">"#,
            Enrolment::MAX_CHARS
        );
    }
    body.push_str(
        r#"<label for="wilaya">Wilaya <span>Province</span></label><select id="wilaya" name="wilaya">"#,
    );
    for (number, name) in WILAYAS.iter().enumerate() {
        let chosen = if number == 15 { " selected" } else { "" };
        let _ = write!(body, r#"<option value="{0}"{chosen}>{1:02} {0}</option>"#, escape(name), number + 1);
    }
    body.push_str(
        r#"</select>
<label for="level">Niveau <span>Level</span></label>
<select id="level" name="level"><option>Licence</option><option selected>Master</option><option>Doctorat</option></select>
<button>S’inscrire <span>Enrol</span></button></form>"#,
    );
    let _ = write!(
        body,
        "<h2>Dernières inscriptions <span>{count} en tout · in all</span></h2><ol class=\"card\">"
    );
    for record in recent {
        let e = &record.enrolment;
        let _ = write!(
            body,
            "<li><b>{}</b> <span>{} {}, {} · {}</span></li>",
            receipt(record.id),
            escape(&e.first_name),
            escape(&e.family_name),
            escape(&e.level),
            escape(&e.wilaya)
        );
    }
    body.push_str("</ol>");
    whole("Inscription · PROGRES", instance, &body)
}

/// The page after an enrolment was stored.
pub(crate) fn enrolled(instance: &str, id: u64) -> String {
    let body = format!(
        r#"<div class="card done"><p>Inscription enregistrée <span>Your enrolment is stored</span></p>
<p class="number">{}</p><p><a href="/">Nouvelle inscription <span>Another one</span></a></p></div>"#,
        receipt(id)
    );
    whole("Reçu · PROGRES", instance, &body)
}

/// The page for what could not be done; `why` is for the reader.
pub(crate) fn refused(instance: &str, why: &str) -> String {
    let body = format!(
        r#"<div class="card done"><p>Inscription non enregistrée <span>Your enrolment was not stored</span></p>
<p>{}</p><p><a href="/">Recommencer <span>Start again</span></a></p></div>"#,
        escape(why)
    );
    whole("Erreur · PROGRES", instance, &body)
}

fn whole(title: &str, instance: &str, body: &str) -> String {
    let instance = escape(instance);
    format!(
        r#"<!doctype html>
<html lang="fr"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{title}</title><style>{STYLE}</style></head>
<body><header><b>PROGRES</b> <span>Master · Doctorat</span></header><main>{body}</main>
<footer>Servi par <b>{instance}</b> · served by <b>{instance}</b></footer></body></html>
"#
    )
}

const STYLE: &str = "\
:root{--bg:#f6f7f5;--card:#fff;--ink:#1b2420;--soft:#5d6963;--line:#dfe4e0;--go:#0b6b4f}\
@media(prefers-color-scheme:dark){:root{--bg:#121715;--card:#1a211e;--ink:#e7ece9;--soft:#9aa8a1;--line:#2c3632;--go:#3ec095}}\
*{box-sizing:border-box}\
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.5 system-ui,sans-serif}\
header,main,footer{max-width:34rem;margin:auto;padding:1rem}\
header b{letter-spacing:.08em}span,small,footer{color:var(--soft);font-weight:400;font-size:.86em}\
h1{font-size:1.6rem;line-height:1.2;margin:.5rem 0 1rem}h1 small{display:block;font-size:1rem}\
h2{font-size:1.05rem;margin:2rem 0 .5rem}\
.card{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:1.2rem;margin:0}\
label{display:block;font-weight:600;margin:.9rem 0 .25rem}label:first-of-type{margin-top:0}\
input,select{width:100%;font:inherit;color:inherit;background:var(--bg);border:1px solid var(--line);border-radius:8px;padding:.55rem .7rem}\
input:focus-visible,select:focus-visible,button:focus-visible,a:focus-visible{outline:3px solid var(--go);outline-offset:2px}\
button{margin-top:1.3rem;width:100%;font:inherit;font-weight:600;padding:.7rem;border:0;border-radius:8px;background:var(--go);color:var(--card)}\
button span{color:inherit;opacity:.8}\
ol{list-style:none;overflow-wrap:anywhere}li+li{margin-top:.3rem}li b{font-variant-numeric:tabular-nums}\
.done{text-align:center;margin-top:2rem}.done span{display:block}.number{font-size:2rem;font-weight:700;margin:.5rem}a{color:var(--go)}";

/// The 58 wilayas, in the order of their numbers.
const WILAYAS: [&str; 58] = [
    "Adrar",
    "Chlef",
    "Laghouat",
    "Oum El Bouaghi",
    "Batna",
    "Béjaïa",
    "Biskra",
    "Béchar",
    "Blida",
    "Bouira",
    "Tamanrasset",
    "Tébessa",
    "Tlemcen",
    "Tiaret",
    "Tizi Ouzou",
    "Alger",
    "Djelfa",
    "Jijel",
    "Sétif",
    "Saïda",
    "Skikda",
    "Sidi Bel Abbès",
    "Annaba",
    "Guelma",
    "Constantine",
    "Médéa",
    "Mostaganem",
    "M’Sila",
    "Mascara",
    "Ouargla",
    "Oran",
    "El Bayadh",
    "Illizi",
    "Bordj Bou Arréridj",
    "Boumerdès",
    "El Tarf",
    "Tindouf",
    "Tissemsilt",
    "El Oued",
    "Khenchela",
    "Souk Ahras",
    "Tipaza",
    "Mila",
    "Aïn Defla",
    "Naâma",
    "Aïn Témouchent",
    "Ghardaïa",
    "Relizane",
    "Timimoun",
    "Bordj Badji Mokhtar",
    "Ouled Djellal",
    "Béni Abbès",
    "In Salah",
    "In Guezzam",
    "Touggourt",
    "Djanet",
    "El M’Ghair",
    "El Meniaa",
];
