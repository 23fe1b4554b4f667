"""Prints the spans of OTLP requests, read by OpenTelemetry's own messages, as JSON.

Usage: spans.py FILE... Each span is as protobuf's JSON has it, with ids in hexadecimal and attributes as
one object; those of its resource are there with `resource ` before them. Fields that are not set are absent,
but a parent's id is empty.
"""

import json
import sys

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


def flat(attributes, before=""):
    return {before + one["key"]: next(iter(one["value"].values())) for one in attributes}


def spans(path):
    request = ExportTraceServiceRequest()
    with open(path, "rb") as file:
        request.ParseFromString(file.read())
    # Fields that OTLP does not know would be kept aside silently.
    again = ExportTraceServiceRequest()
    again.CopyFrom(request)
    again.DiscardUnknownFields()
    assert again == request and again.ByteSize() == request.ByteSize(), "fields that OTLP does not have"
    for resource in request.resource_spans:
        about = flat(MessageToDict(resource.resource).get("attributes", []), "resource ")
        for scope in resource.scope_spans:
            assert scope.scope.name == "gantry.scheduler", scope.scope
            for span in scope.spans:
                read = MessageToDict(span)
                read["attributes"] = flat(read.get("attributes", [])) | about
                read["traceId"] = span.trace_id.hex()
                read["spanId"] = span.span_id.hex()
                read["parentSpanId"] = span.parent_span_id.hex()
                assert len(span.trace_id) == 16 and len(span.span_id) == 8, read
                yield read


print(json.dumps([span for path in sys.argv[1:] for span in spans(path)]))
