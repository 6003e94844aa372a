package term

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/service"
	"github.com/mammoth-os/mammoth/resourcemanager/snapshot"
)

// report has the master say that its instances first to last run.
func (m *fakeMaster) report(first, last int) {
	m.z.t.Helper()
	for first <= last {
		request := &masterv1.AllocateRequest{}
		for ; first <= last && len(request.Instances) < service.MostItems; first++ {
			request.Instances = append(request.Instances, &masterv1.InstanceReport{
				Id: fmt.Sprintf("web-%d", first), Role: "web", Version: 1, State: apiv1.Instance_RUNNING,
			})
		}
		m.say(request)
	}
}

// get reads a page over REST.
func (z *testZone) get(path string) (int, string) {
	z.t.Helper()
	response, err := z.web().Get("http://zone" + path)
	if err != nil {
		z.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		z.t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// Readers of one moment share one view of an app, and views of different moments share the instances that are the same in both.
func TestReadersShareViews(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(1))
		m := n.launchMaster()
		m.report(1, 50)
		view := func() *service.AppView {
			view, err := z.rm.App("web")
			if err != nil {
				t.Fatal(err)
			}
			return view
		}
		first := view()
		if view() != first {
			t.Error("two readers of one moment have views of their own")
		}
		m.report(51, 51)
		second := view()
		if len(first.App.GetInstances()) != 50 || len(second.App.GetInstances()) != 51 {
			t.Fatalf("%d and %d instances", len(first.App.GetInstances()), len(second.App.GetInstances()))
		}
		same := map[*apiv1.Instance]bool{}
		for _, instance := range first.App.GetInstances() {
			same[instance] = true
		}
		shared := 0
		for _, instance := range second.App.GetInstances() {
			if same[instance] {
				shared++
			}
		}
		if shared != 50 {
			t.Errorf("%d of 50 instances are shared", shared)
		}
		one, _ := first.JSON()
		other, _ := first.JSON()
		if &one[0] != &other[0] {
			t.Error("a view was encoded twice")
		}
	})
}

// What an app was shown as is kept no longer than the app.
func TestViewsOfRemovedAppsAreForgotten(t *testing.T) {
	inZone(t, func(z *testZone) {
		z.deploy(webSpec(1))
		kept := func() int { return z.rm.board.Newest().Count(snapshot.Apps) }
		watch, err := z.rm.WatchApp("web")
		if err != nil {
			t.Fatal(err)
		}
		defer watch.Close()
		if n := kept(); n != 1 {
			t.Errorf("%d views of one app are kept", n)
		}
		if _, err := z.apps().RemoveApp(context.Background(), &apiv1.RemoveAppRequest{Name: "web"}); err != nil {
			t.Fatal(err)
		}
		z.pass(5 * time.Second)
		if n := kept(); n != 0 {
			t.Errorf("%d views of no app are kept", n)
		}
	})
}

// A view is never older than the last change, whatever it was that changed.
func TestViewsFollowEveryChange(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(1))
		z.app("web")
		m := n.launchMaster()
		if got := z.app("web").GetMaster().GetNode(); got != "node-1" {
			t.Errorf("the master is on %q", got)
		}
		m.report(1, 2)
		if got := z.app("web").GetRunning(); got != 2 {
			t.Errorf("%d run", got)
		}
		m.say(&masterv1.AllocateRequest{
			GoneInstances: []string{"web-1"},
			Instances:     []*masterv1.InstanceReport{{Id: "web-3", Role: "web", State: apiv1.Instance_PENDING}},
		})
		app := z.app("web")
		if len(app.GetInstances()) != 2 || app.GetInstances()[1].GetId() != "web-3" || app.GetRunning() != 1 {
			t.Errorf("shown are %v", app.GetInstances())
		}
	})
}

// Whoever watches a large app is shown its last state in the end, and not every state on the way.
func TestWatchersOfLargeAppsSkipStates(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(1))
		m := n.launchMaster()
		m.report(1, 10_000)
		z.pass(time.Second)
		changes, err := z.rm.WatchApp("web")
		if err != nil {
			t.Fatal(err)
		}
		defer changes.Close()
		shown, last := 0, 0
		go func() {
			for {
				views, err := changes.Next(context.Background())
				if err != nil {
					return
				}
				shown += len(views)
				last = len(views[len(views)-1].App.GetInstances())
			}
		}()
		for n := range 100 {
			m.report(10_001+n, 10_001+n)
			z.pass(time.Millisecond)
		}
		z.pass(time.Second)
		if last != 10_100 || shown > 5 {
			t.Errorf("%d states were shown, the last with %d instances", shown, last)
		}
		z.stop()
		z.pass(time.Second) // a watcher that has just looked pauses before it sees the end
		z.start()
	})
}

// The pages that do not come from the gateway say what it would.
func TestReadsOverRESTAreTheGateways(t *testing.T) {
	inZone(t, func(z *testZone) {
		for path, want := range map[string]string{
			"/v1/apps":           `{"apps":[],"nextPageToken":"","summary":null}`,
			"/v1/apps/web":       `{"code":5,"details":[],"message":"no app is named \"web\"; \"mammoth app ls\" lists those that there are"}` + "\n",
			"/v1/apps/web/watch": `{"code":5,"details":[],"message":"no app is named \"web\"; \"mammoth app ls\" lists those that there are"}` + "\n",
		} {
			if _, got := z.get(path); got != want {
				t.Errorf("%s:\n%s", path, got)
			}
		}
		n := z.addNode("node-1")
		z.deploy(webSpec(1))
		m := n.launchMaster()
		m.report(1, 3)
		status, one := z.get("/v1/apps/web")
		if status != http.StatusOK || len(one) < 500 {
			t.Errorf("%d %s", status, one)
		}
		if _, list := z.get("/v1/apps"); list != `{"apps":[`+one+`],"nextPageToken":"","summary":null}` {
			t.Errorf("the list is %s", list)
		}
		if _, list := z.get("/v1/apps?queue=default"); list != `{"apps":[`+one+`],"nextPageToken":"","summary":null}` {
			t.Errorf("the list of its queue is %s", list)
		}
		if status, _ := z.get("/v1/apps?queue=none"); status != http.StatusNotFound {
			t.Errorf("the list of a queue that is not there has status %d", status)
		}
	})
}
