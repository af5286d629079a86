"""Chinese that reads like a text, of common words and punctuation; the same each time."""

from __future__ import annotations

import random

# ruff: noqa: RUF001  # this is what its punctuation looks like
_COMMONEST = "的 了 在 是 和 有 也 都 就 不 对 从 与 一个 我们 这个"
_SOURCE = """
我们 你们 他们 自己 大家 这个 那个 什么 怎么 为什么 因为 所以 但是 如果 虽然 而且 或者 以及 还是
就是 不是 没有 可以 应该 必须 需要 能够 可能 已经 正在 将要 曾经 一直 总是 经常 有时 从来 非常 特别
十分 更加 比较 最后 首先 其次 然后 同时 目前 现在 以后 以前 今天 明天 昨天 今年 去年 明年 早上 晚上
上午 下午 时候 时间 时代 历史 世界 国家 社会 经济 政治 文化 教育 科学 技术 工业 农业 商业 市场 企业
公司 工厂 银行 政府 部门 机构 组织 单位 城市 农村 地区 中国 美国 日本 北京 上海 广州 香港 学校 大学
中学 学生 老师 教授 医生 医院 病人 工人 农民 作家 记者 朋友 家庭 父母 孩子 妻子 丈夫 女人 男人 老人
青年 人民 人类 人们 生活 工作 学习 研究 发展 建设 改革 开放 管理 服务 生产 销售 消费 投资 贸易 价格
质量 数量 水平 能力 条件 环境 资源 能源 石油 电力 水 空气 土地 森林 动物 植物 健康 食品 衣服 房子
汽车 飞机 火车 地铁 道路 桥梁 交通 运输 通信 网络 互联网 电脑 手机 软件 硬件 数据 信息 系统 程序
算法 模型 语言 文字 文章 小说 电影 音乐 艺术 体育 比赛 足球 篮球 新闻 报纸 杂志 电视 广播 图书馆
博物馆 公园 商店 饭店 酒店 超市 邮局 警察 法律 法院 规定 政策 制度 权利 义务 责任 安全 问题 困难
原因 结果 影响 作用 意义 价值 目标 计划 方案 方法 方式 过程 步骤 阶段 情况 状态 变化 趋势 机会 挑战
竞争 合作 关系 交流 讨论 会议 报告 决定 建议 意见 观点 思想 理论 实践 经验 知识 能源 智能 人工智能
机器学习 深度学习 神经网络 大型语言模型 训练 推理 部署 服务器 请求 响应 用户 客户 接口 文档 代码
测试 版本 更新 错误 日志 配置 缓存 内存 进程 线程 并发 吞吐量 延迟 性能 效率 成本 收入 利润 税收
预算 资金 贷款 保险 股票 基金 风险 增长 下降 提高 降低 增加 减少 扩大 缩小 改善 加强 保护 支持 帮助
促进 推动 实现 完成 开始 结束 继续 停止 进行 开展 举行 参加 组成 成立 建立 创造 设计 制造 使用 利用
采用 提供 获得 取得 接受 拒绝 同意 反对 认为 知道 了解 理解 发现 发明 证明 说明 解释 表示 指出 强调
介绍 回答 告诉 希望 相信 喜欢 担心 害怕 高兴 难过 生气 满意 重要 主要 基本 简单 复杂 容易 美丽 漂亮
年轻 古老 现代 传统 先进 落后 丰富 贫穷 富裕 公平 自由 民主 和平 战争 军队 武器 士兵 英雄 故事 传说
春节 中秋节 长江 黄河 长城 故宫 大熊猫 茶叶 丝绸 瓷器 书法 国画 京剧 中医 太极拳 春天 夏天 秋天
冬天 天气 太阳 月亮 星星 地球 海洋 山脉 河流 沙漠 草原 的 了 在 是 和 有 也 都 就 不 对 从 把 被 让
给 向 与 及 等 这 那 个 年 月 日 人 大 小 多 少 新 旧 好 高 低 长 短 快 慢 上 下 中 内 外 一个 一些
一种 一样 两个 三年 十年 百分之 第一 第二 许多 全部 部分 每个 各种 其他 另外 例如 比如 关于 根据
按照 通过 由于 随着 除了 对于
"""
_WORDS = _SOURCE.split()
_COMMON = _COMMONEST.split()
_ENDS = "。。。。。！？；"
_SMALL = ("2024年", "15", "3.5%", "AI", "API", "GPT-4", "《红楼梦》", "“合作”", "（见下文）")
#: The commoner half of GB 2312, for names and rarer words.
_CHARACTERS = [
    bytes((row, cell)).decode("gb2312") for row in range(0xB0, 0xD7) for cell in range(0xA1, 0xFF)
]


def chinese(length: int, seed: int) -> str:
    """So many characters."""
    draw = random.Random(seed)
    # As in any language, a few words make up much of the text.
    weights = [1 / (rank + 4) for rank in range(len(_WORDS))]
    words = _WORDS[:]
    random.Random(1).shuffle(words)
    parts: list[str] = []
    size = 0
    while size < length:
        sentence = "，".join(
            _clause(draw, words, weights) for _ in range(draw.choice((1, 2, 2, 3, 4)))
        )
        parts.append(sentence + draw.choice(_ENDS) + ("\n\n" if draw.random() < 0.15 else ""))
        size += len(parts[-1])
    return "".join(parts)[:length]


def _clause(draw: random.Random, words: list[str], weights: list[float]) -> str:
    size = draw.choice((3, 4, 5, 5, 6, 7, 9))
    clause: list[str] = []
    for word in draw.choices(words, weights, k=size):
        if clause and draw.random() < 0.35:
            clause.append(draw.choice(_COMMON))
        kind = draw.random()
        if kind < 0.02:
            clause.append(draw.choice(_SMALL))
        elif kind < 0.12:
            clause.append("".join(draw.choices(_CHARACTERS, k=draw.choice((1, 2, 2, 3)))))
        else:
            clause.append(word)
    return "".join(clause)
