package resourcemanager

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/store"
)

var errBroken = errors.New("input/output error")

// breaking is a store that fails every commit while broken is set.
type breaking struct {
	store.Store
	broken *atomic.Bool
}

func (s breaking) Commit(ctx context.Context, batch store.Batch) error {
	if s.broken.Load() {
		return errBroken
	}
	return s.Store.Commit(ctx, batch)
}

// led is a ResourceManager whose store can be broken.
type led struct {
	t        *testing.T
	broken   atomic.Bool
	listener *bufconn.Listener
	apps     apiv1.AppsClient
	rm       *ResourceManager
	ended    chan error
}

// lead runs a test in a bubble with a ResourceManager that has the app "web".
func lead(t *testing.T, test func(*led)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := &led{t: t, listener: bufconn.Listen(1 << 20), ended: make(chan error, 1)}
		disk := &store.Disk{}
		open := func() (store.Store, error) {
			return breaking{store.OpenMemory(disk, store.Options{Now: time.Now(), EventRetention: 100}), &l.broken}, nil
		}
		config := Config{Dir: "unused", Images: shelf{"web:1": {Entrypoint: []string{"/web"}}}, Registry: board, AllowInsecure: true}
		if err := config.Validate(); err != nil {
			t.Fatal(err)
		}
		memory, _ := open()
		var err error
		if l.rm, err = newOn(t.Context(), config, memory, l.listener); err != nil {
			t.Fatal(err)
		}
		l.rm.open = open
		ctx, end := context.WithCancel(context.Background())
		go func() {
			l.ended <- l.rm.Run(ctx)
			close(l.ended)
		}()
		conn, err := grpc.NewClient("passthrough:///zone", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.listener.DialContext(ctx) }))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		l.apps = apiv1.NewAppsClient(conn)
		synctest.Wait()
		spec := &apiv1.AppSpec{Name: "web", Roles: []*apiv1.RoleSpec{{Image: "web:1", Instances: 2}}}
		if _, err := l.apps.Deploy(t.Context(), &apiv1.DeployRequest{Spec: spec, IfGeneration: -1}); err != nil {
			t.Fatal(err)
		}
		test(l)
		end()
		_ = conn.Close()
		<-l.ended
	})
}

func (l *led) scale(to int32) error {
	_, err := l.apps.ScaleApp(l.t.Context(), &apiv1.ScaleAppRequest{Name: "web", Instances: to})
	return err
}

func (l *led) get(path string) (int, string) {
	l.t.Helper()
	web := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return l.listener.DialContext(ctx)
	}}}
	response, err := web.Get("http://zone" + path)
	if err != nil {
		l.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		l.t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// After a term whose store has failed, another one begins in the same process, with exactly what was acknowledged. Until then
// callers get the answer to try again.
func TestATermThatFailsIsFollowedByAnother(t *testing.T) {
	lead(t, func(l *led) {
		first, err := l.rm.Term()
		if err != nil || first.Identity().Epoch != 1 {
			t.Fatalf("the first term: %v", err)
		}
		l.broken.Store(true)
		if err := l.scale(7); status.Code(err) != codes.Unavailable {
			t.Errorf("a change that the store does not take: %v", err)
		}
		synctest.Wait()
		const again = "the ResourceManager leads its zone again in a moment; try again then"
		if _, err := l.rm.Term(); err == nil {
			t.Error("a term leads whose store has failed")
		}
		for path, want := range map[string]string{"/v1/apps/web": again, "/readyz": again} {
			if code, said := l.get(path); code != http.StatusServiceUnavailable || !strings.Contains(said, want) {
				t.Errorf("%s between two terms: %d %s", path, code, said)
			}
		}
		if code, _ := l.get("/healthz"); code != http.StatusOK {
			t.Errorf("the process is well, and says %d", code)
		}
		if err := l.scale(7); status.Code(err) != codes.Unavailable || status.Convert(err).Message() != again {
			t.Errorf("a change between two terms: %v", err)
		}
		l.broken.Store(false)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if later, err := l.rm.Term(); err != nil || later.Identity().Epoch != 2 {
			t.Fatalf("the next term: %v", err)
		}
		app, err := l.apps.GetApp(l.t.Context(), &apiv1.GetAppRequest{Name: "web"}, grpc.WaitForReady(true))
		if err != nil || app.GetWanted() != 2 {
			t.Errorf("the next term knows %d instances, %v", app.GetWanted(), err)
		}
		if err := l.scale(3); err != nil {
			t.Errorf("a change in the next term: %v", err)
		}
		if code, said := l.get("/readyz"); code != http.StatusOK {
			t.Errorf("ready: %d %s", code, said)
		}
	})
}

// A store that fails again and again ends the process, with the reason.
func TestAStoreThatKeepsFailingEndsTheResourceManager(t *testing.T) {
	lead(t, func(l *led) {
		l.broken.Store(true)
		began := time.Now()
		_ = l.scale(7)
		select {
		case err := <-l.ended:
			if !errors.Is(err, errBroken) {
				t.Errorf("it ended with %v", err)
			}
		case <-time.After(time.Hour):
			t.Fatalf("it goes on after %s", time.Since(began))
		}
	})
}
