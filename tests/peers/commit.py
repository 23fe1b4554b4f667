"""commit.py PORT FOLDER: stores every file of a folder over three associations at once, and then asks
for storage commitment of all of them and of one that was never sent. Prints one line: how many were
answered with success, the event's type, how many are committed to and how many are not."""

import pathlib
import sys
import threading

import pydicom
from pynetdicom import AE, evt
from pynetdicom.sop_class import CTImageStorage, StorageCommitmentPushModel

port, folder = int(sys.argv[1]), pathlib.Path(sys.argv[2])
files = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
stored, told, arrived = [], [], threading.Event()


def store(part):
    ae = AE("SCANNER")
    ae.add_requested_context(CTImageStorage)
    association = ae.associate("127.0.0.1", port, ae_title="GANTRY")
    assert association.is_established
    stored.extend(one for one in part if association.send_c_store(one).Status == 0)
    association.release()


threads = [threading.Thread(target=store, args=(files[n::3],)) for n in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()


def report(event):
    told.append((event.event_type, event.event_information))
    arrived.set()
    return 0x0000, None


request = pydicom.Dataset()
request.TransactionUID = pydicom.uid.generate_uid()
request.ReferencedSOPSequence = []
for uid in [file.SOPInstanceUID for file in files] + ["1.2.3.4"]:
    item = pydicom.Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CTImageStorage, uid
    request.ReferencedSOPSequence.append(item)
ae = AE("SCANNER")
ae.add_requested_context(StorageCommitmentPushModel)
association = ae.associate(
    "127.0.0.1", port, ae_title="GANTRY", evt_handlers=[(evt.EVT_N_EVENT_REPORT, report)]
)
status, _ = association.send_n_action(
    request, 1, StorageCommitmentPushModel, "1.2.840.10008.1.20.1.1"
)
assert status.Status == 0, status
assert arrived.wait(20), "no report came"
association.release()
kind, data = told[0]
assert data.TransactionUID == request.TransactionUID
kept, failed = data.get("ReferencedSOPSequence", []), data.get("FailedSOPSequence", [])
print(len(stored), kind, len(kept), [hex(item.FailureReason) for item in failed])
