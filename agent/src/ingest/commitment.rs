//! Storage commitment (PS3.4 annex J): a peer asks whether instances are kept for good, and is told
//! of each whether they are.
//!
//! An instance is kept for good where its record is whole and its bytes have their hash, which is
//! read anew for every request: a peer deletes its own copy on the strength of the answer. What was
//! set aside is kept too, but is no instance of the class it claims, so it is not committed to.

use dicom_core::{DataElement, PrimitiveValue, Tag, VR, dicom_value};
use dicom_dictionary_std::tags;
use dicom_encoding::transfer_syntax::TransferSyntaxIndex;
use dicom_object::InMemDicomObject;
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;
use dicom_ul::pdu::{Pdu, PresentationContextResultReason};
use gantry_imaging::dicom::data_set;
use gantry_library::Library;

use super::command::{self, Command, Line};
use super::send::{self, Peer};
use crate::error::AgentError;

/// Storage Commitment Push Model SOP Class.
pub(super) const CLASS: &str = "1.2.840.10008.1.20.1";
/// Its one instance.
const INSTANCE: &str = "1.2.840.10008.1.20.1.1";
/// Request Storage Commitment.
const ACTION: u16 = 1;
/// Instances of one request: a study of a long night.
const INSTANCES_MAX: usize = 100_000;

/// Failure reasons (PS3.3 C.14.1.1).
const PROCESSING_FAILURE: u16 = 0x0110;
const NO_SUCH_INSTANCE: u16 = 0x0112;
const CLASS_INSTANCE_CONFLICT: u16 = 0x0119;

/// What a peer asks.
pub(super) struct Asked {
    transaction_uid: String,
    instances: Vec<Reference>,
}

#[derive(Clone)]
struct Reference {
    class: String,
    instance: String,
}

/// What a peer is told.
pub(super) struct Report {
    transaction_uid: String,
    kept: Vec<Reference>,
    failed: Vec<(Reference, u16)>,
}

/// Reads a request; a status where it is none.
pub(super) fn read(command: &Command, syntax: &str, data: &[u8]) -> Result<Asked, u16> {
    if command.sop_instance_uid != INSTANCE {
        return Err(command::NO_SUCH_SOP_INSTANCE);
    }
    if command.action != ACTION {
        return Err(command::NO_SUCH_ACTION);
    }
    let data = data_set(data, syntax).map_err(|_| command::INVALID_ARGUMENT)?;
    let items = data.get(tags::REFERENCED_SOP_SEQUENCE).and_then(|element| element.items());
    let items = items.filter(|items| items.len() <= INSTANCES_MAX);
    let reference = |item: &InMemDicomObject| {
        let class = text(item, tags::REFERENCED_SOP_CLASS_UID)?;
        Some(Reference { class, instance: text(item, tags::REFERENCED_SOP_INSTANCE_UID)? })
    };
    let instances: Option<Vec<Reference>> =
        items.ok_or(command::INVALID_ARGUMENT)?.iter().map(reference).collect();
    let transaction_uid = text(&data, tags::TRANSACTION_UID);
    match (transaction_uid, instances) {
        (Some(transaction_uid), Some(instances)) => Ok(Asked { transaction_uid, instances }),
        _ => Err(command::INVALID_ARGUMENT),
    }
}

/// Looks for each instance.
pub(super) fn look(library: &Library, asked: &Asked) -> Report {
    let mut near = None;
    let (mut kept, mut failed) = (Vec::new(), Vec::new());
    for one in &asked.instances {
        match library.find_kept(&one.instance, &mut near) {
            Ok(Some(class)) if class == one.class => kept.push(one.clone()),
            Ok(Some(_)) => failed.push((one.clone(), CLASS_INSTANCE_CONFLICT)),
            Ok(None) => failed.push((one.clone(), NO_SUCH_INSTANCE)),
            Err(error) => {
                tracing::error!("an instance cannot be committed to: {error}");
                failed.push((one.clone(), PROCESSING_FAILURE));
            }
        }
    }
    Report { transaction_uid: asked.transaction_uid.clone(), kept, failed }
}

impl Report {
    /// How many instances are kept for good.
    pub(super) fn kept(&self) -> usize {
        self.kept.len()
    }

    /// How many are not.
    pub(super) fn failed(&self) -> usize {
        self.failed.len()
    }

    /// Tells it within an association.
    pub(super) fn tell(
        &self,
        association: &mut impl Line,
        context: u8,
        syntax: &str,
    ) -> Result<(), String> {
        let event = if self.failed.is_empty() { 1 } else { 2 };
        command::send(association, context, command::event(1, CLASS, INSTANCE, event))?;
        command::send_data(association, context, &self.data(syntax))
    }

    fn data(&self, syntax: &str) -> Vec<u8> {
        let mut data = InMemDicomObject::new_empty();
        data.put(uid(tags::TRANSACTION_UID, &self.transaction_uid));
        let reference = |one: &Reference| {
            InMemDicomObject::from_element_iter([
                uid(tags::REFERENCED_SOP_CLASS_UID, &one.class),
                uid(tags::REFERENCED_SOP_INSTANCE_UID, &one.instance),
            ])
        };
        let failure = |(one, reason): &(Reference, u16)| {
            let mut item = reference(one);
            item.put(DataElement::new(tags::FAILURE_REASON, VR::US, dicom_value!(U16, *reason)));
            item
        };
        for (tag, items) in [
            (tags::REFERENCED_SOP_SEQUENCE, self.kept.iter().map(reference).collect::<Vec<_>>()),
            (tags::FAILED_SOP_SEQUENCE, self.failed.iter().map(failure).collect()),
        ] {
            if !items.is_empty() {
                let items = dicom_core::value::DataSetSequence::from(items);
                data.put(DataElement::new(tag, VR::SQ, items));
            }
        }
        let mut bytes = Vec::new();
        if let Some(syntax) = TransferSyntaxRegistry.get(syntax) {
            // Plain elements written to memory do not fail.
            let _ = data.write_dataset_with_ts(&mut bytes, syntax);
        }
        bytes
    }
}

/// Calls a peer that has hung up before its answer was there.
pub(super) fn call_back(peer: &Peer, report: &Report) -> Result<(), AgentError> {
    let fail = |reason: String| AgentError::Send { peer: peer.address, reason };
    let (mut association, ended) = send::open_as_provider(peer, CLASS)?;
    let fail = |reason: String| fail(send::with_reason(reason, &ended));
    let accepted = association.contexts().iter().find(|context| {
        context.abstract_syntax.trim_end_matches('\0') == CLASS
            && context.reason == PresentationContextResultReason::Acceptance
    });
    let (context, syntax) = accepted
        .map(|one| (one.id, one.transfer_syntax.trim_end_matches('\0').to_owned()))
        .ok_or_else(|| fail("the peer does not take reports of storage commitment".into()))?;
    report.tell(&mut association, context, &syntax).map_err(fail)?;
    match association.receive().map_err(fail)? {
        Pdu::PData { .. } => association.release().map_err(fail),
        other => Err(fail(format!("the peer answered with {}", other.short_description()))),
    }
}

fn uid(tag: Tag, value: &str) -> DataElement<InMemDicomObject> {
    DataElement::new(tag, VR::UI, PrimitiveValue::from(value))
}

fn text(data: &InMemDicomObject, tag: Tag) -> Option<String> {
    let text = data.get(tag)?.to_str().ok()?;
    let text = text.trim_matches(|c: char| c == '\0' || c.is_whitespace());
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::net::{Shutdown, TcpListener};
    use std::path::Path;
    use std::time::Duration;

    use dicom_ul::association::client::ClientAssociationOptions;
    use dicom_ul::association::server::ServerAssociationOptions;
    use dicom_ul::association::{Association, SyncAssociation};
    use gantry_config::CallSettings;
    use gantry_link::Outside;

    use super::*;
    use crate::ingest::tests::{Bench, CT, EXPLICIT_LE, scan};
    use crate::ingest::tls_tests::certificate;

    /// The command of a request, and its data set.
    fn request(references: &[(&str, &str)]) -> (Vec<u8>, Vec<u8>) {
        let kept = references
            .iter()
            .map(|(class, instance)| Reference {
                class: (*class).into(),
                instance: (*instance).into(),
            })
            .collect();
        let asked = Report { transaction_uid: "1.2.3".into(), kept, failed: Vec::new() };
        (command::action(7, CLASS, INSTANCE, ACTION), asked.data(EXPLICIT_LE))
    }

    /// What one message of a peer holds: its commands and its data.
    fn message(association: &mut impl SyncAssociation<std::net::TcpStream>) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            let Pdu::PData { data } = SyncAssociation::receive(association).unwrap() else {
                panic!("no data")
            };
            let last = data.iter().any(|value| value.is_last);
            bytes.extend(data.into_iter().flat_map(|value| value.data));
            if last {
                return bytes;
            }
        }
    }

    fn reasons(report: &InMemDicomObject) -> Vec<(String, u16)> {
        let items = report.get(tags::FAILED_SOP_SEQUENCE).and_then(|element| element.items());
        let reason = |item: &InMemDicomObject| {
            let reason = item.get(tags::FAILURE_REASON).unwrap().to_int().unwrap();
            (text(item, tags::REFERENCED_SOP_INSTANCE_UID).unwrap(), reason)
        };
        items.unwrap_or_default().iter().map(reason).collect()
    }

    #[test]
    fn what_is_kept_is_committed_to_and_nothing_else() {
        let bench = Bench::new(|_| {});
        bench.send(&scan()).unwrap();
        let uids: Vec<String> = scan()
            .iter()
            .map(|file| gantry_imaging::dicom::inspect(file).unwrap().sop_instance_uid)
            .collect();
        let series = bench.library.series().unwrap().remove(0).id;
        let damaged = gantry_imaging::dicom::inspect(&scan()[3]).unwrap();
        let objects = bench.library.series_objects(&series).unwrap();
        let of_damaged = objects.iter().find(|object| {
            let bytes = bench.library.read_object(object).unwrap();
            gantry_imaging::dicom::inspect(&bytes).unwrap().sop_instance_uid
                == damaged.sop_instance_uid
        });
        let path = bench.library.object_path(of_damaged.unwrap());
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();

        let mut peer = ClientAssociationOptions::new()
            .called_ae_title("GANTRY")
            .with_presentation_context(CLASS, vec![EXPLICIT_LE])
            .establish(bench.address())
            .unwrap();
        let all = [(CT, &*uids[0]), (CT, &uids[1]), ("1.9", &uids[2]), (CT, &uids[3]), (CT, "1.8")];
        for (references, event, failed) in [
            (&all[..2], 1, vec![]),
            (
                &all[..],
                2,
                vec![
                    (uids[2].clone(), CLASS_INSTANCE_CONFLICT),
                    (uids[3].clone(), PROCESSING_FAILURE),
                    ("1.8".into(), NO_SUCH_INSTANCE),
                ],
            ),
        ] {
            let (command, data) = request(references);
            command::send(&mut peer, 1, command).unwrap();
            command::send_data(&mut peer, 1, &data).unwrap();
            let answer = command::read(&message(&mut peer)).unwrap();
            assert_eq!((answer.field, answer.status), (0x8130, command::SUCCESS));
            let report = command::read(&message(&mut peer)).unwrap();
            assert_eq!((report.field, report.event), (0x0100, event));
            let report = data_set(&message(&mut peer), EXPLICIT_LE).unwrap();
            assert_eq!(text(&report, tags::TRANSACTION_UID).unwrap(), "1.2.3");
            assert_eq!(reasons(&report), failed);
            let kept = report.get(tags::REFERENCED_SOP_SEQUENCE).unwrap().items().unwrap().len();
            assert_eq!(kept, 2);
        }
        for (command, status) in [
            (command::action(1, CLASS, "1.2.3", ACTION), command::NO_SUCH_SOP_INSTANCE),
            (command::action(1, CLASS, INSTANCE, 2), command::NO_SUCH_ACTION),
        ] {
            command::send(&mut peer, 1, command).unwrap();
            command::send_data(&mut peer, 1, &request(&all).1).unwrap();
            assert_eq!(command::read(&message(&mut peer)).unwrap().status, status);
        }
        command::send(&mut peer, 1, command::action(1, CLASS, INSTANCE, ACTION)).unwrap();
        command::send_data(&mut peer, 1, b"no data set").unwrap();
        let status = command::read(&message(&mut peer)).unwrap().status;
        assert_eq!(status, command::INVALID_ARGUMENT);
        peer.release().unwrap();
    }

    #[test]
    fn who_hangs_up_is_called_back() {
        called_back(None);
    }

    #[test]
    fn who_hangs_up_is_called_back_with_tls() {
        let folder = tempfile::TempDir::new().unwrap();
        for name in ["gantry", "scanner"] {
            certificate(folder.path(), name);
        }
        called_back(Some(folder.path()));
    }

    /// With TLS where there is a folder of certificates.
    fn called_back(certificates: Option<&Path>) {
        let file = |name: &str| certificates.map(|folder| folder.join(name));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let bench = Bench::new(|settings| {
            settings.commitment.insert("SCANNER".into(), address);
            settings.calls = file("scanner-ca.pem").map(|authority| CallSettings {
                authority,
                certificate: file("gantry.pem"),
                key: file("gantry.key"),
                names: [("SCANNER".to_owned(), "localhost".to_owned())].into(),
            });
        });
        let outside = file("scanner.pem").map(|own| {
            let (key, authority) = (file("scanner.key").unwrap(), file("gantry-ca.pem"));
            Outside::new(&own, &key, authority.as_deref()).unwrap()
        });
        let answered = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let stream = match outside {
                None => stream,
                Some(outside) => outside.accept(stream, Duration::from_secs(20)).unwrap(),
            };
            let mut caller =
                ServerAssociationOptions::new().promiscuous(true).establish(stream).unwrap();
            assert_eq!(caller.peer_ae_title().trim(), "GANTRY");
            let report = command::read(&message(&mut caller)).unwrap();
            let bytes = message(&mut caller);
            let response = command::response(&report, command::EVENT_RESPONSE, command::SUCCESS);
            command::send(&mut caller, 1, response).unwrap();
            assert!(matches!(caller.receive().unwrap(), Pdu::ReleaseRQ));
            caller.send(&Pdu::ReleaseRP).unwrap();
            (report.event, bytes)
        });
        let mut peer = ClientAssociationOptions::new()
            .calling_ae_title("SCANNER")
            .called_ae_title("GANTRY")
            .with_presentation_context(CLASS, vec![EXPLICIT_LE])
            .establish(bench.address())
            .unwrap();
        // As many as make the report longer than what a closed connection still takes.
        let many: Vec<String> = (0..20_000).map(|number| format!("1.2.3.{number}")).collect();
        let references: Vec<(&str, &str)> = many.iter().map(|uid| (CT, uid.as_str())).collect();
        let (command, data) = request(&references);
        command::send(&mut peer, 1, command).unwrap();
        command::send_data(&mut peer, 1, &data).unwrap();
        peer.inner_stream().shutdown(Shutdown::Both).unwrap();
        drop(peer);
        let (event, bytes) = answered.join().unwrap();
        let report =
            data_set(&bytes, EXPLICIT_LE).or_else(|_| data_set(&bytes, "1.2.840.10008.1.2"));
        assert_eq!(event, 2);
        assert!(text(&report.unwrap(), tags::TRANSACTION_UID).is_some());
    }
}
