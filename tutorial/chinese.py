"""Chinese for what the notebooks draw and tabulate: labels of figures, headers of tables, notes.

The Chinese editions switch it on in one line, and share all other code with the English ones. Names
of workers, layers and methods stay as they are.
"""

from __future__ import annotations

import re
from contextlib import suppress

import matplotlib
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.font_manager import findSystemFonts, fontManager
from matplotlib.text import Text

FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "Source Han Sans SC",
    "Source Han Sans CN",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Microsoft YaHei",
    "SimHei",
    "PingFang SC",
    "Hiragino Sans GB",
    "Heiti TC",
    "Arial Unicode MS",
)
"""Fonts with Chinese characters, of Linux, Windows and macOS."""

TEXTS = {
    # Titles
    "Test images of each digit, 28 x 28 pixels": "每个数字的测试图像，28 x 28 像素",
    "What each worker holds": "各工作节点持有的数据",
    "What travels to and from one worker, and what stays there": (
        "与一个工作节点之间传输的内容，以及留在本地的内容"
    ),
    "What Alice's model sees in the test images": "Alice 的模型在测试图像中看到了什么",
    "One after the other": "逐个进行",
    "At the same time": "同时进行",
    "Fetched one by one": "逐个取回",
    "Posted to all first": "先全部投递",
    "Predicted digits (bars) and actual digits (line)": "预测的数字（柱）与实际的数字（线）",
    "Accuracy on test images": "测试图像上的准确率",
    "Accuracy on the evaluator's test images": "评估者的测试图像上的准确率",
    "Loss on each worker's last batch": "各工作节点最后一批的损失",
    "The federated model on the test images": "联邦模型在测试图像上的表现",
    "The federated model on 10,000 test images": "联邦模型在 10,000 张测试图像上的表现",
    "Correctly recognised test images of each digit, last round": (
        "最后一轮：每个数字被正确识别的测试图像"
    ),
    "Five ways to train, measured after every round": "五种训练方式，每轮之后测量",
    "Ten steps on Alice, and one loss fetched": "在 Alice 上训练十步，取回一次损失",
    "Ten steps on Alice, with the model sent and fetched": (
        "在 Alice 上训练十步，含模型的发送与取回"
    ),
    "Accuracy on 2,500 test images; dotted: the goal": "2,500 张测试图像上的准确率；点线：目标",
    "Rounds to the goal": "达到目标所需的轮数",
    "One of five workers returns ...": "五个工作节点中有一个返回 ……",
    "What training costs": "训练的代价",
    "Accuracy after 20 steps on three workers": "在三个工作节点上训练 20 步后的准确率",
    # Axes
    "digit": "数字",
    "predicted digit": "预测的数字",
    "actual digit": "实际的数字",
    "training images": "训练图像",
    "test images": "测试图像",
    "test images (logarithmic)": "测试图像（对数刻度）",
    "megabytes (1 MB = 1,000,000 bytes)": "兆字节（1 MB = 1,000,000 字节）",
    "seconds": "秒",
    "round": "轮次",
    "correct (%)": "正确率（%）",
    "negative log-likelihood": "负对数似然",
    "change of the bias": "偏置的变化",
    "bias of 9, beyond what was expected": "数字 9 的偏置，超出预期的部分",
    "training steps": "训练步数",
    "epsilon (smaller is more private)": "epsilon（越小越私密）",
    "milliseconds since the start, a bar a message": "自开始起的毫秒数，每条消息一根柱",
    "kB received | kB sent": "收到的 kB | 发出的 kB",
    # Legends and ticks
    "predicted": "预测",
    "actual": "实际",
    "average": "平均",
    "average, your own images": "平均，你自己的图像",
    "after the last round": "最后一轮之后",
    "send": "发送",
    "train": "训练",
    "fetch": "取回",
    "post": "投递",
    "sent": "发出",
    "sent, and its reply waited for": "发出，并等待回复",
    "received": "收到",
    "loss function": "损失函数",
    "model, one way": "模型，单程",
    "alice's images (stay)": "alice 的图像（不离开）",
    "models of 40 rounds": "40 轮的模型",
    "digit split": "按数字划分",
    "IID split": "IID 划分",
    "30 local batches": "每轮 30 批",
    "weighted mean": "加权平均",
    "without charlie": "没有 charlie",
    "remote tensors": "远程张量",
    "remote tensors, IID": "远程张量，IID",
    "local": "本地",
    "remote, posted": "远程，投递",
    "remote, each loss": "远程，每步取损失",
    "remote, model each": "远程，每步发模型",
    "operations": "操作",
    "messages": "消息",
    "times waited": "等待次数",
    "milliseconds a step": "每步毫秒数",
    "times the local step": "本地一步的倍数",
    "averaging": "普通平均",
    "its own model": "自己的模型",
    "noise": "噪声",
    "flipped signs": "符号翻转",
    "flipped, x 1,000": "翻转，x 1,000",
    "mean": "均值",
    "median": "中位数",
    "trimmed mean": "截尾均值",
    "with privacy": "有隐私保护",
    "without privacy": "无隐私保护",
    "no privacy": "无隐私保护",
    "no nine": "没有 9",
    "a nine": "有一个 9",
    # Tables
    "address": "地址",
    "state": "状态",
    "ready": "就绪",
    "digits": "数字",
    "samples": "样本",
    "layer": "层",
    "output": "输出",
    "weight, bias": "权重，偏置",
    "parameters": "参数",
    "total": "合计",
    "Interrupted. Run the cell again to train from the start.": (
        "已中断。重新运行此单元格即可从头训练。"
    ),
}

# Texts with numbers or names in them. What a group matches is translated in its turn.
FORMS = {
    r"(\w+) \(([\d,]+) images\)": "{}（{} 张图像）",
    r"(\w+) \((.+)\)": "{}（{}）",
    r"([^:]+): ([\d.]+) s": "{}：{} 秒",
    r"([^:]+): ([\d.]+) % correct": "{}：正确率 {} %",
    r"without: ([\d.]+) %": "无隐私保护：{} %",
    r"with: epsilon ([\d.]+) a fit": "有隐私保护：每次训练 epsilon {}",
    r"([^:]+): ([\d.]+|nan) %": "{}：{} %",
    r"([^:]+):\nnot finite": "{}：\n不是有限值",
    r"Round (\d+) of (\d+)": "第 {} / {} 轮",
    r"round (\d+)\ntest images": "第 {} 轮\n测试图像",
    r"update of (.+)": "{} 的更新",
    r"noise ([\d.]+)": "噪声 {}",
    r"A step on (\d+) images, (\d+) steps at a time": "在 {} 张图像上训练一步，每次 {} 步",
    r"Not ready: (.+)\. Run in a terminal: (.+)": "尚未就绪：{}。请在终端中运行：{}",
}

_on = False


def use_chinese() -> None:
    """Have figures and tables speak Chinese from now on, if there is a font for it.

    It prints a line if there is none, and they stay English.
    """
    global _on
    if not (fonts := _installed() or _installed_lately()):
        print(f"图中文字为英文：未找到中文字体。请安装其中之一并重启内核：{', '.join(FONTS[:5])}")
        return
    # The first one draws what it has, so that numbers look as they do in English.
    matplotlib.rcParams["font.family"] = ["DejaVu Sans", *fonts]
    _on = True


def _installed() -> list[str]:
    found = set(fontManager.get_font_names())
    return [name for name in FONTS if name in found]


def _installed_lately() -> list[str]:
    # matplotlib keeps its list of fonts in a file, and would find no font that came after it.
    known = {font.fname for font in fontManager.ttflist}
    for path in set(findSystemFonts()) - known:
        with suppress(RuntimeError, OSError):  # a file that it cannot read
            fontManager.addfont(path)
    return _installed()


def translated(text: str) -> str:
    """Return a text in Chinese if Chinese is in use and there is a translation, else as it is."""
    if not _on:
        return text
    if text in TEXTS:
        return TEXTS[text]
    for form, chinese in FORMS.items():
        if found := re.fullmatch(form, text):
            return chinese.format(*map(translated, found.groups()))
    return text


class TranslatedFigure(Figure):
    """A figure that translates its texts when it is drawn."""

    def draw(self, renderer: RendererBase) -> None:
        """As `Figure.draw`."""
        self.translate()
        super().draw(renderer)

    def translate(self) -> None:
        """Translate all texts of titles, axes, ticks, legends and annotations, in place."""
        for ax in self.axes:
            for axis in (ax.xaxis, ax.yaxis):
                names = [label.get_text() for label in axis.get_ticklabels()]
                # Before their texts: an axis writes these anew whenever it is drawn.
                if (chinese := [translated(name) for name in names]) != names:
                    axis.set_ticks(axis.get_ticklocs(), chinese)
        for text in self.findobj(Text):
            text.set_text(translated(text.get_text()))
