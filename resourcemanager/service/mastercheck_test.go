package service

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/anypb"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

func TestAStatusThatPeopleCouldNotBeShownIsRefused(t *testing.T) {
	for want, status := range map[string]*apiv1.MasterStatus{
		"":                             {Detail: &anypb.Any{TypeUrl: "type.googleapis.com/somebody.else.Ring", Value: []byte{8, 1}}},
		"cannot be written as JSON":    {Detail: &anypb.Any{TypeUrl: "type.googleapis.com/somebody.else.Ring", Value: []byte{255}}},
		"which people are shown":       {Detail: &anypb.Any{TypeUrl: "type.googleapis.com/mammoth.api.v1.MasterStatus", Value: []byte{26, 1, 255}}},
		"but the limit is":             {Text: strings.Repeat("x", 1<<20)},
		"cannot be written as JSON, w": {Detail: &anypb.Any{Value: []byte{8, 1}}},
	} {
		err := checkAllocate(&masterv1.AllocateRequest{Status: status})
		switch {
		case want == "" && err != nil:
			t.Errorf("%v: %v", status, err)
		case want != "" && (!errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), want)):
			t.Errorf("%q is answered with %v", want, err)
		}
	}
}
