package service

import (
	"sync"
	"weak"

	"google.golang.org/grpc"

	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// AppView is the state of an app at one moment. All readers of that moment share it, so it must not be changed. An app of
// 10,000 instances has megabytes: its encoded forms are kept as long as a reader uses them, or until the next garbage collection.
type AppView struct {
	App *apiv1.App

	mu       sync.Mutex
	prepared weak.Pointer[grpc.PreparedMsg]
	json     weak.Pointer[[]byte]
}

// AppPage is a page of a list of apps, the token of the next one, and the summary if it was asked for.
type AppPage struct {
	Apps    []*AppView
	Next    string
	Summary *apiv1.ListSummary
}

// Send sends the view on a gRPC stream of apps.
func (v *AppView) Send(stream grpc.ServerStream) error {
	prepared, err := v.prepare(stream)
	if err != nil {
		return err
	}
	return stream.SendMsg(prepared)
}

func (v *AppView) prepare(stream grpc.ServerStream) (*grpc.PreparedMsg, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if prepared := v.prepared.Value(); prepared != nil {
		return prepared, nil
	}
	prepared := &grpc.PreparedMsg{}
	if err := prepared.Encode(stream, v.App); err != nil {
		return nil, err
	}
	v.prepared = weak.Make(prepared)
	return prepared, nil
}

// JSON is the view as REST JSON. It must not be changed.
func (v *AppView) JSON() ([]byte, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if text := v.json.Value(); text != nil {
		return *text, nil
	}
	text, err := wire.JSON.Marshal(v.App)
	if err != nil {
		return nil, err
	}
	v.json = weak.Make(&text)
	return text, nil
}
