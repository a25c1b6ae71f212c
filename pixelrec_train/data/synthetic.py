"""A made-up short-video site in PixelRec's CSV layout, small enough for a laptop and with something to learn.

Users watch videos of a topic, mostly stay with it and sometimes drift to the topic that follows it on a
ring; titles, tags and descriptions name the topic. So an item's text tells what is watched next, also for
videos that are new: some appear only at the very end of histories, where no model has trained on them.
"""

import numpy as np

from pixelrec_train.files import write_csv

# topic | English words | Chinese words
TOPICS = """
ramen|noodle broth ramen chopsticks miso pork egg soup|拉面 汤底 面馆 叉烧 溏心蛋
baking|bread oven flour sourdough cake butter dough pastry|烘焙 面包 蛋糕 烤箱 黄油
coffee|espresso latte beans roaster grinder barista crema cup|咖啡 拿铁 手冲 豆子 奶泡
garden|seed tomato soil compost pruning rose greenhouse harvest|园艺 番茄 种子 温室 玫瑰
fishing|rod lure bass river bait reel carp lake|钓鱼 鱼竿 鲫鱼 饵料 湖边
camping|tent campfire stove trail backpack forest lantern sleeping|露营 帐篷 营火 徒步 森林
climbing|rope boulder crag granite summit harness ascent chalk|攀岩 岩壁 绳索 登顶 抱石
cycling|bike gear gravel helmet sprint chain wheel climb|骑行 公路车 车轮 爬坡 链条
running|marathon pace shoes interval track stride finish training|跑步 马拉松 配速 跑鞋 训练
football|goal striker league penalty derby stadium keeper pass|足球 进球 联赛 点球 守门员
basketball|dunk guard rebound playoff dribble court shooter rookie|篮球 扣篮 三分 季后赛 控卫
chess|opening gambit knight endgame checkmate bishop tactic rook|象棋 开局 残局 将军 战术
speedrun|glitch record boss level skip console retro frame|速通 关卡 纪录 通关 主机
robotics|servo arduino sensor robot motor solder circuit drone|机器人 电机 传感器 无人机 焊接
coding|python compiler bug terminal keyboard server algorithm deploy|编程 代码 算法 服务器 键盘
astronomy|telescope galaxy nebula comet eclipse orbit planet star|天文 星系 望远镜 行星 日食
volcano|lava crater eruption ash magma geology basalt quake|火山 岩浆 喷发 地质 地震
ocean|whale reef coral diving shark tide submarine dolphin|海洋 鲸鱼 珊瑚 潜水 鲨鱼
birds|owl eagle nest migration feather heron binocular wetland|观鸟 猫头鹰 老鹰 羽毛 湿地
cats|kitten whisker purr litter tabby paw nap scratching|猫咪 小猫 猫爪 打盹 铲屎
guitar|chord riff solo amp fingerstyle pedal blues strings|吉他 和弦 独奏 指弹 音箱
piano|sonata etude pedal nocturne concert prelude keys chopin|钢琴 奏鸣曲 夜曲 琴键 音乐会
painting|watercolor canvas brush portrait sketch pigment easel gallery|绘画 水彩 画布 素描 肖像
woodwork|chisel lathe walnut dovetail workshop saw plane joint|木工 凿子 榫卯 胡桃木 车床
watches|dial tourbillon bracelet chronograph vintage movement strap bezel|手表 机芯 表盘 陀飞轮 古董
""".strip().splitlines()
OPENERS = "Best,Slow,Late night,First,Ultimate,Quiet,Honest,Tiny,Lost,Perfect,Rainy day,One hour".split(",")
CLOSERS = "guide,diary,challenge,review,story,lesson,marathon,mistakes,secrets,tour,basics,live".split(",")
ZH_CLOSERS = "教程,日记,挑战,评测,故事,合集,入门,技巧".split(",")

ITEMS_PER_TOPIC = 40
COLD_PER_TOPIC = 4  # the newest ones: watched only at the end of histories
STAY, DRIFT = 0.78, 0.17  # else a random topic
COLD_SHARE = 0.15  # of the last two views of a user


def write_demo(interaction_csv, information_csv, users=2000, seed=0):
    """Write both CSV files; the same bytes for the same arguments.

    Interactions are sorted by time, so not by user; a few titles and many descriptions are empty.
    """
    rng = np.random.default_rng(seed)
    items = make_items(rng)
    views = make_views(rng, users)
    order = rng.permutation(len(items))  # the numbers of ids say nothing about topics
    texts = ([f"i{order[i]:05d}", *fields] for i, fields in enumerate(items))
    rows = ([f"i{order[item]:05d}", f"u{user:05d}", time] for time, user, item in sorted(views))
    write_csv(information_csv, ["item_id", "title", "tag", "description"], texts)
    write_csv(interaction_csv, ["item_id", "user_id", "timestamp"], rows)


def make_items(rng):
    """[title, tag, description] of every item; item t * ITEMS_PER_TOPIC + j is video j of topic t."""
    items = []
    for line in TOPICS:
        tag, english, chinese = line.split("|")
        english, chinese = english.split(), chinese.split()
        for _ in range(ITEMS_PER_TOPIC):
            a, b, c = rng.choice(english, 3, replace=False)
            x, y = rng.choice(chinese, 2, replace=False)
            title = rng.choice(
                [
                    f"{rng.choice(OPENERS)} {a} and {b} {rng.choice(CLOSERS)}",
                    f"{x}{rng.choice(ZH_CLOSERS)}：{y}与{a}",
                    f"{a.title()} {rng.choice(CLOSERS)} | {x}",
                ]
            )
            description = (
                f"{c.title()}, {b} and more {tag}, {rng.choice(OPENERS).lower()} {rng.choice(CLOSERS)}。{y}"
            )
            items.append([
                title if rng.random() > 0.02 else "",
                tag if rng.random() > 0.05 else "",
                description if rng.random() > 0.24 else "",
            ])  # fmt: skip
    return items


def make_views(rng, users):
    """(time in seconds, user, item) of every view, at most one of each item per user."""
    topics, known = len(TOPICS), ITEMS_PER_TOPIC - COLD_PER_TOPIC
    follower = rng.permutation(topics)  # the ring of topics, in hidden order
    after = {int(follower[i]): int(follower[(i + 1) % topics]) for i in range(topics)}
    popularity = 1 / np.arange(1, known + 1) ** 0.6
    popularity /= popularity.sum()
    views = []
    for user in range(users):
        length = int(np.clip(rng.gamma(3.0, 3.5) + 4, 4, 40))
        topic = int(rng.integers(topics))
        time = int(1_690_000_000 + rng.integers(0, 30_000_000))
        seen = set()
        for nth in range(length):
            chance = rng.random()
            if chance > STAY + DRIFT:
                topic = int(rng.integers(topics))
            elif chance > STAY:
                topic = after[topic]
            new_release = nth >= length - 2 and rng.random() < COLD_SHARE
            for _ in range(20):
                j = known + rng.integers(COLD_PER_TOPIC) if new_release else rng.choice(known, p=popularity)
                item = topic * ITEMS_PER_TOPIC + int(j)
                if item not in seen:
                    break
            seen.add(item)
            views.append((time, user, item))
            time += int(rng.exponential(40_000)) + 30
    return views
