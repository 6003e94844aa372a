package term

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/service"
	"github.com/mammoth-os/mammoth/resourcemanager/snapshot"
)

func shownApp(name, id string, generation int64) *snapshot.Object {
	app := &apiv1.App{Name: name, Id: id, Generation: generation}
	return &snapshot.Object{Kind: snapshot.Apps, Name: name, Message: app, With: &service.AppView{App: app}}
}

// Whoever watches an app and falls far behind is shown the app as it is then, or told that it is gone, also if another has its name.
func TestAWatcherOfAnAppWhoFallsBehind(t *testing.T) {
	for what, c := range map[string]struct {
		then []*snapshot.Object
		gone bool
	}{
		"an app that is there":       {[]*snapshot.Object{shownApp("web", "1", 2)}, false},
		"an app that did not change": {nil, false},
		"an app that is gone":        {[]*snapshot.Object{{Kind: snapshot.Apps, Name: "web", Gone: true}}, true},
		"another app of the name":    {[]*snapshot.Object{{Kind: snapshot.Apps, Name: "web", Gone: true}, shownApp("web", "2", 1)}, true},
	} {
		s := newShown(1, func() error { return nil })
		s.board.Publish([]*snapshot.Object{shownApp("web", "1", 1)})
		w, err := s.WatchApp("web")
		if err != nil {
			t.Fatal(err)
		}
		if views, err := w.Next(t.Context()); err != nil || views[0].App.GetGeneration() != 1 {
			t.Fatalf("%s: %v, %v", what, views, err)
		}
		s.board.Publish(c.then)
		// So much is removed that the watcher begins again, and so much is there that what there is comes in several batches.
		var much []*snapshot.Object
		for i := range 22_000 {
			name := fmt.Sprint("container-", i)
			much = append(much, &snapshot.Object{Kind: snapshot.Containers, Name: name, Message: &apiv1.Container{Id: name}})
			if i%2 == 0 {
				much = append(much, &snapshot.Object{Kind: snapshot.Containers, Name: name, Gone: true})
			}
		}
		s.board.Publish(much)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		for {
			views, err := w.Next(ctx)
			if err == nil && !c.gone && views[0].App.GetGeneration() == int64(1+len(c.then)) {
				break
			}
			if err != nil {
				if !c.gone || !errdefs.IsNotFound(err) {
					t.Errorf("%s: %v", what, err)
				}
				break
			}
		}
		cancel()
		s.board.End(errStopped)
	}
}
