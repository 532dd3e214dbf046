// Command subscription shows a flat rate: 10.00 a week, whatever is read. The provider is paid automatically at the end of the week; nobody
// has to do anything.
//
// One reader makes an escrow for a week itself. The other two subscribe, which makes such an escrow each week. A week lasts some seconds
// here; --hours 168 makes it a real one.
package main

import (
	"github.com/tallygate/tallygate/docs/examples/go/scene"
	"github.com/tallygate/tallygate/docs/examples/go/tallygate"
)

const price = "10.00"

// feed is the provider's service: it answers for as long as the week is paid.
type feed struct{ account tallygate.Agent }

func (f feed) readable(escrow string) bool {
	return scene.Must(f.account.Status(escrow)).Status == "open"
}

func (f feed) readableBySubscriber(id string) bool {
	status := f.subscription(id).Status
	return status == "active" || status == "ending"
}

func (f feed) subscription(id string) tallygate.Subscription {
	return scene.Must(f.account.Subscription(id))
}

func main() {
	hours := scene.HoursOfAWeek()
	scene.Title("Flat subscription: %s a week", price)
	provider := scene.Provider("feed")
	service := feed{provider}
	weekly, regular, brief := scene.Customer("weekly reader"), scene.Customer("regular reader"), scene.Customer("brief reader")

	week := scene.Must(weekly.Lock(provider.ID, price, "a week of the feed", hours)).ID
	scene.Expect("the feed is readable", service.readable(week), true)
	scene.Say("the weekly reader has locked a week, and reads as much as it likes")

	scene.Do(regular.Pay(weekly.ID, "80", "for other things"))
	long := scene.Must(regular.Subscribe(provider.ID, price, "the feed", hours)).ID
	scene.Expect("the feed is readable", service.readableBySubscriber(long), true)
	scene.Say("the regular reader has subscribed; its wallet covers two weeks")

	short := scene.Must(brief.Subscribe(provider.ID, price, "the feed", hours)).ID
	scene.Do(brief.EndSubscription(short))
	scene.Expect("status", service.subscription(short).Status, "ending")
	scene.Say("the brief reader has subscribed, and ended it with its first week")

	scene.Wait("the end of the week", hours, func() bool { return !service.readable(week) })
	scene.Expect("status", scene.Must(weekly.Status(week)).Status, "released")
	scene.Say("a week is over: the clock has paid the provider, and the feed is closed to the weekly reader")

	scene.Wait("the brief reader's end", hours, func() bool { return service.subscription(short).Status == "ended" })
	scene.Wait("the regular reader's second week", 2*hours, func() bool { return service.subscription(long).Status == "suspended" })
	scene.Expect("weeks", service.subscription(long).Periods, 2)
	scene.Expect("the feed is readable", service.readableBySubscriber(short) || service.readableBySubscriber(long), false)
	scene.Say("two weeks are over: the third is not covered, and the regular reader's subscription suspended")
	scene.Do(regular.EndSubscription(long))
	scene.Expect("status", service.subscription(long).Status, "ended")

	scene.Reckon(
		scene.Balance{Name: "weekly", Agent: weekly, Amount: "170"},
		scene.Balance{Name: "regular", Agent: regular, Amount: "0"},
		scene.Balance{Name: "brief", Agent: brief, Amount: "90"},
		scene.Balance{Name: "provider", Agent: provider, Amount: "40"},
	)
}
