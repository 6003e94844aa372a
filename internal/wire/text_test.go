package wire_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/mammoth-os/mammoth/internal/wire"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
)

func TestWhatIsNoTextIsReplaced(t *testing.T) {
	message := &trackerv1.RegisterRequest{
		NodeId:    "n1",
		StateDirs: []string{"web", "caf\xe9"},
		Attributes: map[string]*corev1.Attribute{
			"cpu":   {Value: &corev1.Attribute_Text{Text: "\xff\xfe fast"}},
			"k\x80": {Value: &corev1.Attribute_Flag{Flag: true}},
		},
		Containers: []*corev1.ContainerStatus{{
			Exit: &corev1.Exit{Message: "d\xc3"}, Labels: map[string]string{"instance": "\x80", "\x81": "x"},
		}},
	}
	before := proto.CloneOf(message)
	raw, err := wire.Codec().Marshal(message)
	if err != nil {
		t.Fatal(err)
	}
	got := &trackerv1.RegisterRequest{}
	if err := wire.Codec().Unmarshal(raw, got); err != nil {
		t.Fatal(err)
	}
	want := &trackerv1.RegisterRequest{
		NodeId:    "n1",
		StateDirs: []string{"web", "caf�"},
		Attributes: map[string]*corev1.Attribute{
			"cpu": {Value: &corev1.Attribute_Text{Text: "� fast"}},
			"k�":  {Value: &corev1.Attribute_Flag{Flag: true}},
		},
		Containers: []*corev1.ContainerStatus{{
			Exit: &corev1.Exit{Message: "d�"}, Labels: map[string]string{"instance": "�", "�": "x"},
		}},
	}
	if !proto.Equal(got, want) {
		t.Errorf("it became\n%v, want\n%v", got, want)
	}
	if !proto.Equal(message, before) {
		t.Error("the message itself was changed")
	}
}
