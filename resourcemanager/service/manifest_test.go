package service

import (
	"context"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// Manifests wait for each other, and none waits for a caller that has left.
func TestAFewManifestsAreReadAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &apps{reading: make(chan struct{}, 1), frameworks: &packageLoop{}}
		s.reading <- struct{}{} // one that takes long
		ctx, leave := context.WithCancel(t.Context())
		answers := make(chan error, 2)
		for _, ctx := range []context.Context{ctx, t.Context()} {
			go func() {
				_, err := s.read(ctx, &apiv1.DeployRequest{Manifest: []byte("nonsense")})
				answers <- err
			}()
		}
		synctest.Wait()
		if len(answers) > 0 {
			t.Fatalf("answered %v beside the one that is read", <-answers)
		}
		leave()
		if err := <-answers; status.Code(err) != codes.Canceled {
			t.Errorf("who has left is answered %v", err)
		}
		<-s.reading
		if err := <-answers; status.Code(err) != codes.InvalidArgument {
			t.Errorf("who has waited is answered %v", err)
		}
	})
}
