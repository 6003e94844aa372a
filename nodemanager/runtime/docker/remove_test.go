package docker

import (
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
)

// An engine whose own file of the output is damaged, as by a power cut, says so in the midst of the stream.
func TestOutputThatCannotBeReadDoesNotKeepAContainer(t *testing.T) {
	var removed atomic.Bool
	answer := func(text []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if removed.Load() {
				http.NotFound(w, r)
				return
			}
			_, _ = w.Write(text)
		}
	}
	engine := http.NewServeMux()
	engine.HandleFunc("/_ping", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Api-Version", "1.41") })
	engine.HandleFunc("GET /v1.41/containers/{name}/json", answer([]byte(`{"Id": "c0ffee", "State": {"Running": false}, "Config": {}}`)))
	engine.HandleFunc("GET /v1.41/containers/{name}/logs", answer(slices.Concat(
		frame(1, "2026-01-02T03:04:05Z before\n"), frame(3, "Error grabbing logs: invalid character"))))
	engine.HandleFunc("DELETE /v1.41/containers/c0ffee", func(http.ResponseWriter, *http.Request) { removed.Store(true) })
	r, key := onEngine(t, engine), id.Container{Epoch: 1, App: id.App{ClusterStart: 1, Seq: 1}, Seq: 1}
	if err := r.Remove(t.Context(), key); err != nil {
		t.Error(err)
	}
	if !removed.Load() {
		t.Error("the container is still there")
	}
	var kept []string
	err := r.Logs(t.Context(), key, runtime.LogOptions{Tail: -1}, func(line runtime.LogLine) error {
		kept = append(kept, line.Text)
		return nil
	})
	if err != nil || !slices.Equal(kept, []string{"before"}) {
		t.Errorf("%q was kept, %v", kept, err)
	}
}

// The engine goes on with a removal whose asker has gone, and refuses another one meanwhile.
func TestARemovalThatIsUnderWayIsWaitedFor(t *testing.T) {
	var asked atomic.Int32
	engine := http.NewServeMux()
	engine.HandleFunc("/_ping", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Api-Version", "1.41") })
	engine.HandleFunc("GET /v1.41/containers/{name}/json", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"Id": "c0ffee", "State": {"Status": "removing"}, "Config": {}}`))
	})
	engine.HandleFunc("DELETE /v1.41/containers/c0ffee", func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) == 3 {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusConflict)
		_, _ = w.Write([]byte(`{"message": "removal of container c0ffee is already in progress"}`))
	})
	r := onEngine(t, engine)
	if err := r.Remove(t.Context(), id.Container{Epoch: 1, App: id.App{ClusterStart: 1, Seq: 1}, Seq: 1}); err != nil || asked.Load() != 3 {
		t.Errorf("%v, asked %d times", err, asked.Load())
	}
}

// onEngine is a runtime on an engine that answers as it is told.
func onEngine(t *testing.T, engine http.Handler) *Runtime {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: engine}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	r, err := New(Config{Socket: socket, Zone: "zone", Node: "node", LogDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}
