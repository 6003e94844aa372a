package wire

import (
	"bytes"
	"encoding/json"
	"testing"

	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

func TestWhatIsOfAnUnknownTypeIsShownByItsName(t *testing.T) {
	known, err := anypb.New(wrapperspb.String("text"))
	if err != nil {
		t.Fatal(err)
	}
	for want, detail := range map[string]*anypb.Any{
		`{"@type":"type.googleapis.com/google.protobuf.StringValue","value":"text"}`: known,
		`{"@type":"type.googleapis.com/somebody.else.Ring"}`:                         {TypeUrl: "type.googleapis.com/somebody.else.Ring", Value: []byte{8, 1}},
	} {
		raw, err := JSON.Marshal(&apiv1.MasterStatus{Detail: detail})
		if err != nil {
			t.Errorf("%s: %v", want, err)
			continue
		}
		var written struct{ Detail json.RawMessage }
		if err := json.Unmarshal(raw, &written); err != nil {
			t.Fatal(err)
		}
		var compact bytes.Buffer
		if err := json.Compact(&compact, written.Detail); err != nil || compact.String() != want {
			t.Errorf("it is written as %s, %v; want %s", &compact, err, want)
		}
	}
}
