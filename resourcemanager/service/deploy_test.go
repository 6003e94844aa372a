package service_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/service"
)

// changing is a loop with an app that another caller changes now and then.
type changing struct {
	service.Apps
	generation int64
	// changes is how many more times it is changed between a look and what follows it.
	changes int
	asked   []int64
}

func (l *changing) App(name string) (*service.AppView, error) {
	return &service.AppView{App: &apiv1.App{Name: name, Generation: l.generation, Spec: &apiv1.AppSpec{Name: name, Priority: int32(l.generation)}}}, nil
}

func (l *changing) Deploy(_ context.Context, request *apiv1.DeployRequest) (*apiv1.DeployResponse, error) {
	if l.changes > 0 {
		l.changes--
		l.generation++
	}
	l.asked = append(l.asked, request.GetIfGeneration())
	if !request.GetDryRun() || request.GetIfGeneration() > 0 && request.GetIfGeneration() != l.generation {
		return nil, fmt.Errorf("it is at generation %d: %w", l.generation, errdefs.ErrAborted)
	}
	return &apiv1.DeployResponse{App: &apiv1.App{Spec: request.GetSpec()}}, nil
}

// Both sides of a diff are of one generation: if the app changes in between, it is read again.
func TestADiffIsOfOneMoment(t *testing.T) {
	const manifest = "name: names\nkind: companion\ncommand: [/bin/true]\n"
	loop := &changing{generation: 3, changes: 2}
	inServices(t, loop, node{}, func(client apiv1.AppsClient) {
		answer, err := client.Deploy(context.Background(), &apiv1.DeployRequest{Manifest: []byte(manifest), Diff: true})
		if err != nil {
			t.Fatal(err)
		}
		before := ""
		for _, field := range answer.GetDiff().GetFields() {
			if field.GetKey() == "priority" {
				before = field.GetBefore()
			}
		}
		if fmt.Sprint(loop.asked) != "[3 4 5]" || before != "5" {
			t.Errorf("it was asked about the generations %v, and the diff is %v", loop.asked, answer.GetDiff())
		}
		// With an expected generation the call fails instead.
		_, err = client.Deploy(context.Background(), &apiv1.DeployRequest{Manifest: []byte(manifest), Diff: true, IfGeneration: 3})
		if status.Code(err) != codes.Aborted {
			t.Errorf("of an earlier generation: %v", err)
		}
	})
}
