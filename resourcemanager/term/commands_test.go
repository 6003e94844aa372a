package term

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	dynamicdeployv1 "github.com/mammoth-os/mammoth/proto/mammoth/dynamicdeploy/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// given is what became of a command.
type given struct {
	response *apiv1.CommandAppResponse
	err      error
}

// give gives the master of web a command, and does not wait for the answer.
func (z *testZone) give(ctx context.Context) <-chan given {
	z.t.Helper()
	command, err := anypb.New(&dynamicdeployv1.Pause{})
	if err != nil {
		z.t.Fatal(err)
	}
	came := make(chan given, 1)
	conn := z.conn
	go func() {
		response, err := apiv1.NewAppsClient(conn).CommandApp(ctx, &apiv1.CommandAppRequest{Name: "web", Command: command})
		came <- given{response, err}
	}()
	synctest.Wait()
	return came
}

// refusedWith fails unless a command was refused with a code and a sentence that has a part.
func (g given) refusedWith(t *testing.T, code codes.Code, part string) {
	t.Helper()
	if status.Code(g.err) != code || !strings.Contains(status.Convert(g.err).Message(), part) {
		t.Errorf("the command is answered %v, %v, want %v with %q", g.response, g.err, code, part)
	}
}

func commandsOf(answers []*masterv1.AllocateResponse) (commands []*masterv1.Command) {
	for _, answer := range answers {
		commands = append(commands, answer.GetCommands()...)
	}
	return commands
}

func TestAnAnswerIsReadOnceWhatFollowsFromTheCommandIsStored(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(2))
		m := n.launchMaster()
		came := z.give(context.Background())
		commands := commandsOf(m.heard())
		if len(commands) != 1 || commands[0].GetBy() == "" || !commands[0].GetCommand().MessageIs(&dynamicdeployv1.Pause{}) {
			t.Fatalf("the master is told %v", commands)
		}
		done, err := anypb.New(&dynamicdeployv1.Done{})
		if err != nil {
			t.Fatal(err)
		}
		request := reported(1, apiv1.MasterStatus_WORKING, 1)
		request.Memo = []byte("paused")
		request.Answers = []*masterv1.CommandAnswer{{Id: commands[0].GetId(), Answer: done, Event: "version 1 of web: somebody paused it"}}
		m.say(request)
		got := <-came
		if got.err != nil || !got.response.GetAnswer().MessageIs(&dynamicdeployv1.Done{}) || got.response.GetApp().GetStatus().GetDone() != 1 {
			t.Errorf("the command is answered %v, %v", got.response, got.err)
		}
		if !slices.ContainsFunc(z.events("web"), func(e *apiv1.Event) bool { return e.GetMessage() == "version 1 of web: somebody paused it" }) {
			t.Error("what was done is no event")
		}
		// What the master saved with its answer is there for the next one, after a restart of the ResourceManager too.
		z.restart()
		m.connect()
		if memo := string(m.register.GetMemo()); memo != "paused" {
			t.Errorf("the memo is %q", memo)
		}
	})
}

// A master that reports all the time is not shown each time. Whoever is answered by it finds what he was told all the same.
func TestWhatABusyMasterAnswersIsShown(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(2))
		m := n.launchMaster()
		late := false
		for i := range 400 {
			m.say(reported(1, apiv1.MasterStatus_WORKING, int32(i%2)))
			late = late || z.app("web").GetStatus().GetDone() != int32(i%2)
		}
		if !late {
			t.Fatal("the reports are shown each time")
		}
		came := z.give(context.Background())
		answered := reported(1, apiv1.MasterStatus_WORKING, 2)
		done, err := anypb.New(&dynamicdeployv1.Done{})
		if err != nil {
			t.Fatal(err)
		}
		answered.Answers = []*masterv1.CommandAnswer{{Id: commandsOf(m.heard())[0].GetId(), Answer: done}}
		m.say(answered)
		if got := <-came; got.err != nil {
			t.Fatal(got.err)
		}
		if shown := z.app("web").GetStatus().GetDone(); shown != 2 {
			t.Errorf("after the answer %d instances are shown as done, want 2", shown)
		}
	})
}

func TestACommandThatNobodyCarriesOutIsRefused(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(2))
		const ended = "the application master of web has ended; it may have carried out the command"
		m := n.launchMaster()

		// The answer of a master that takes too long comes to nobody.
		began := time.Now()
		came := z.give(context.Background())
		late := commandsOf(m.heard())
		(<-came).refusedWith(t, codes.Aborted, "the application master of web has not answered within 10s; it may still carry out the command")
		if waited := time.Since(began); waited < 10*time.Second || waited > 12*time.Second {
			t.Errorf("it was waited for the answer for %v", waited)
		}
		m.say(&masterv1.AllocateRequest{Answers: []*masterv1.CommandAnswer{{Id: late[0].GetId()}}})

		// Who has gone is not waited for.
		ctx, cancel := context.WithCancel(context.Background())
		came = z.give(ctx)
		cancel()
		(<-came).refusedWith(t, codes.Canceled, "canceled")
		m.say(&masterv1.AllocateRequest{Answers: []*masterv1.CommandAnswer{{Id: commandsOf(m.heard())[0].GetId()}}})

		// More than some do not wait.
		var all []<-chan given
		for range 100 {
			all = append(all, z.give(context.Background()))
		}
		(<-z.give(context.Background())).refusedWith(t, codes.ResourceExhausted, "100 commands wait for the application master of web")

		// A master that ends answers nothing any more.
		n.done(m.container, &corev1.Exit{Reason: corev1.Exit_EXITED, Code: 1})
		z.pass(2 * time.Second)
		for _, came := range all {
			(<-came).refusedWith(t, codes.Aborted, ended)
		}

		if _, err := z.apps().StopApp(context.Background(), &apiv1.StopAppRequest{Name: "web"}); err != nil {
			t.Fatal(err)
		}
		z.pass(time.Minute)
		(<-z.give(context.Background())).refusedWith(t, codes.Aborted, `web has no application master at present, which would carry out the command; "mammoth app explain web" says why`)
	})
}

func TestACommandHasAnAppAContentAndABound(t *testing.T) {
	inZone(t, func(z *testZone) {
		for _, test := range []struct {
			request *apiv1.CommandAppRequest
			code    codes.Code
			part    string
		}{
			{&apiv1.CommandAppRequest{Name: "web"}, codes.InvalidArgument, "the request has no command"},
			{&apiv1.CommandAppRequest{Name: "web", Command: &anypb.Any{}}, codes.NotFound, `no app is named "web"`},
			{&apiv1.CommandAppRequest{Name: "web", Command: &anypb.Any{Value: make([]byte, 17<<10)}}, codes.InvalidArgument, fmt.Sprint("the limit is ", 16<<10)},
		} {
			_, err := z.apps().CommandApp(context.Background(), test.request)
			given{err: err}.refusedWith(t, test.code, test.part)
		}
	})
}
